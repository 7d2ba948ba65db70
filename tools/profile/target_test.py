"""From measurements to a target file: prices are found again, and what is written can be read and used."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import onnx
import pytest

from converter.graph.operator_sets import CLAMPS
from converter.options import Options
from converter.targets import TARGETS, find_target
from converter.targets.costs import LINEAR_CONVOLUTION_KIND, PIECEWISE_LINEAR_KIND, TRANSPOSE_STEP_KIND, features, form_costs, kind_of
from converter.targets.target import Cost, Target
from converter.targets.target_file import target_text
from runtime_tests.emulation import emulator
from runtime_tests.emulation.emulator import Job, JobResult, Machine
from runtime_tests.emulation.environment import Environment
from runtime_tests.emulation.testing.stand_in import NOP, emulate_here
from tools.profile import target as profile_target
from tools.profile.probes import Probe, probe_model, probes, seen_in
from tools.profile.samples import Sample
from tools.profile.target import Measured, fitted, main

HERE = next(name for name, target in TARGETS.items() if platform.machine() in target.architectures)
"""A target of this machine's kind."""


def samples(kind: str, node: float, element: float) -> list[Sample]:
    return [Sample(kind, {"node": 1.0, "element": size}, node + element * size) for size in (10.0, 400.0, 9000.0)]


BASE = TARGETS["x86"]
MEASURED = Measured(
    floats=[*samples("Sigmoid", 50.0, 8.0), *samples("Sub", 40.0, 2.0), *samples("Tanh", 40.0, 2.0), *samples("Flatten", 0.0, 0.0)],
    integers=[*samples("Sigmoid", 30.0, 3.0), *samples("Flatten", 5.0, 0.0)],
    conversions=[*samples("QuantizeLinear", 7.0, 5.0), *samples("DequantizeLinear", 9.0, 4.0)],
    call=123.0,
    ran="a bench, by hand",
    unit="sips",
    floor=1.0,
    onnxruntime="1.2.3",
)


def test_measurements_give_prices_and_the_base_all_else() -> None:
    target, _ = fitted(BASE, MEASURED)
    assert (target.unit, target.call, target.onnxruntime) == ("sips", 123.0, "1.2.3")
    assert target.costs["Sigmoid"] == Cost({"node": 50.0, "element": 8.0}, {"node": 30.0, "element": 3.0})
    assert target.costs["Sub"] == Cost({"node": 40.0, "element": 2.0}, None)
    measured = {"unit", "call", "costs", "other", "fit", "quantize_node", "quantize_element", "dequantize_node", "dequantize_element"}
    measured |= {"onnxruntime"}
    kept = {each.name for each in fields(Target)} - measured
    assert {name: getattr(target, name) for name in kept} == {name: getattr(BASE, name) for name in kept}


def test_operators_that_are_not_listed_cost_what_the_elementwise_ones_do() -> None:
    """Of the four kinds measured in float, Sub and Tanh; Sigmoid has prices of its own and is no example for others."""
    assert fitted(BASE, MEASURED)[0].other == {"node": 40.0, "element": 2.0}


def test_a_q_is_no_cheaper_than_a_dq() -> None:
    target, _ = fitted(BASE, MEASURED)
    assert (target.quantize(100), target.dequantize(100)) == (9.0 + 500.0, 9.0 + 400.0)


def test_what_costs_nothing_in_float_keeps_a_price_that_a_target_file_may_have() -> None:
    assert fitted(BASE, MEASURED)[0].costs["Flatten"] == Cost({"node": 1.0}, {"node": 5.0})


def test_a_piecewise_linear_sigmoid_keeps_its_price() -> None:
    """Where none of the probes measured one."""
    assert fitted(BASE, replace(MEASURED, unit=BASE.unit))[0].costs[PIECEWISE_LINEAR_KIND] == BASE.costs[PIECEWISE_LINEAR_KIND]


def test_a_piecewise_linear_sigmoid_of_another_unit_has_no_price() -> None:
    assert (
        PIECEWISE_LINEAR_KIND
        not in fitted(BASE, replace(MEASURED, unit="picoseconds" if BASE.unit != "picoseconds" else "instructions"))[0].costs
    )


def test_linear_layers_as_convolutions_have_a_price_of_their_own_beside_the_same_float_form() -> None:
    linear, convolved = samples("Linear", 30.0, 5.0), samples(LINEAR_CONVOLUTION_KIND, 20.0, 4.0)
    target, _ = fitted(BASE, replace(MEASURED, floats=[*MEASURED.floats, *linear], integers=[*MEASURED.integers, *linear, *convolved]))
    assert target.costs[LINEAR_CONVOLUTION_KIND] == Cost({"node": 30.0, "element": 5.0}, {"node": 20.0, "element": 4.0})
    assert LINEAR_CONVOLUTION_KIND not in fitted(BASE, MEASURED)[0].costs


def test_the_target_says_what_was_measured_and_how_far_off_its_prices_are() -> None:
    """Costs of 1 and 3 are best met by a price of 1.2, as in the tests of the fit: 0.2 and 0.6 off, 0.4 in the middle."""
    off = [Sample("Softmax", {"node": 1.0}, cost) for cost in (1.0, 3.0)]
    target, fits = fitted(BASE, replace(MEASURED, floats=[*MEASURED.floats, *off], floor=1e-12))
    assert target.fit["measured"] == "a bench, by hand"
    assert target.fit["Softmax float"] == [0.4, 0.6]
    assert target.fit["Sigmoid integer"] == [0.0, 0.0]
    assert fits["Softmax float"].samples == 2


@pytest.fixture(scope="module")
def probed() -> list[tuple[str, dict[str, float]]]:
    """Kind and features of every probe."""
    model = probe_model(probes())
    shapes = {name: stats.shape for name, stats in seen_in(model).tensors.items()}
    return [(kind_of(node), features(node, shapes)) for node in model.graph if not str(node.name).endswith("_before")]


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_target_predicts_is_fitted_by_the_same_prices(probed: list[tuple[str, dict[str, float]]], name: str) -> None:
    """So the probes tell all prices of the target files apart, in every form."""
    base = TARGETS[name]
    predicted = [(kind, amounts, *form_costs(kind, amounts, base)) for kind, amounts in probed]
    sizes = (10, 400, 9000)
    measured = Measured(
        floats=[Sample(kind, amounts, cost) for kind, amounts, cost, _ in predicted],
        integers=[Sample(kind, amounts, cost) for kind, amounts, _, cost in predicted if cost is not None],
        conversions=[
            Sample(kind, {"node": 1.0, "element": size}, cost(size))
            for kind, cost in (("QuantizeLinear", base.quantize), ("DequantizeLinear", base.dequantize))
            for size in sizes
        ],
        call=base.call,
        ran="nothing",
        unit=base.unit,
        floor=1.0,
    )
    target, fits = fitted(base, measured)
    assert max(found.largest for kind, found in fits.items()) < 1e-6
    for kind, amounts, in_float, in_integer in predicted:
        again = form_costs(kind, amounts, target)
        # prices have four digits
        assert again[0] == pytest.approx(in_float, rel=1e-3), kind
        assert again[1] == (None if in_integer is None else pytest.approx(in_integer, rel=1e-3)), kind
    for size in sizes:
        assert target.quantize(size) == pytest.approx(base.quantize(size), rel=1e-3)
        assert target.dequantize(size) == pytest.approx(base.dequantize(size), rel=1e-3)


def kinds_of(given: Sequence[Probe]) -> set[str]:
    return {kind_of(node) for node in probe_model(given).graph if not str(node.name).endswith("_before")}


def test_the_command_writes_a_target_that_a_conversion_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the clock of this machine, on some of the probes; clamps need the probes of their layers, too."""
    few = [probe for probe in probes()[::6] if not probe.behind and probe.op_type not in CLAMPS]
    monkeypatch.setattr(profile_target, "probes", lambda: few)
    path = tmp_path / "mine.toml"
    assert main([HERE, "--out", str(path), "--name", "my board", "--runs", "2", "--visits", "1"]) == 0
    base, target = TARGETS[HERE], find_target(str(path))
    assert Options(target=str(path)).target == str(path)
    assert (target.name, target.unit, target.call) == ("my board", "picoseconds", 0.0)
    assert (target.signed_activations, target.session_settings, target.margin) == (
        base.signed_activations,
        base.session_settings,
        base.margin,
    )
    assert set(target.costs) == kinds_of(few) | {PIECEWISE_LINEAR_KIND, TRANSPOSE_STEP_KIND}
    assert {kind for kind in kinds_of(few) if target.costs[kind].integer is not None} == {
        kind for kind in kinds_of(few) if kind in base.costs and base.costs[kind].integer is not None
    }
    assert "1 visits of 2 runs" in target.fit["measured"]
    printed = capsys.readouterr()
    table = {line.strip("│").split("│")[0].strip() for line in printed.out.splitlines() if line.startswith("│")}
    table.discard("")  # long prices go on in the next line
    assert table == set(target.fit) - {"measured", "errors"}
    assert printed.err == f"{len(few)} of {len(few)} visits\n"


CALL, NODE, ELEMENT = 5000, 700, 3


def emulate_by_size(jobs: Sequence[Job], core: str, env: Environment) -> tuple[list[JobResult], Machine]:
    """Stands in for the emulated machine: runs the guest's code here, and counts by nodes and elements written."""
    results, machine = emulate_here(jobs, core, env)
    taken = [_taken(job.model) for job in jobs]
    blocks = [({NOP: each},) if job.blocks else () for job, each in zip(jobs, taken, strict=True)]
    return [replace(r, instructions=(each,), blocks=b) for r, each, b in zip(results, taken, blocks, strict=True)], machine


def _taken(model: Path) -> int:
    graph = onnx.load(model).graph
    size: int = math.prod(each.dim_value for each in graph.output[0].type.tensor_type.shape.dim)
    return CALL + len(graph.node) * (NODE + ELEMENT * size)


@pytest.mark.parametrize(("objective", "core", "share"), [("instructions", "cortex-a72", 1.0), ("cycles", "cortex-a55", 0.5)])
def test_what_is_counted_of_each_node_is_its_price(
    objective: str,
    core: str,
    share: float,
    half_a_cycle_each: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An instruction takes half a cycle here."""
    few = [Probe(op, (shape,) * count) for op, count in (("Sigmoid", 1), ("Mul", 2), ("Sub", 2)) for shape in ((2, 3), (4, 50), (9, 100))]
    monkeypatch.setattr(profile_target, "probes", lambda: few)
    monkeypatch.setattr(emulator, "emulate", emulate_by_size)
    path = tmp_path / "counted.toml"
    assert main(["arm64", "--core", core, "--objective", objective, "--out", str(path)]) == 0
    target = find_target(str(path))
    each = {"node": share * NODE, "element": share * ELEMENT}
    assert {kind: cost for kind, cost in target.costs.items() if kind != PIECEWISE_LINEAR_KIND} == {
        "Sigmoid": Cost(each, each),
        "Mul": Cost(each, each),
        "Sub": Cost(each, None),
    }
    assert target.other == each
    assert target.quantize(10) == target.dequantize(10) == share * (NODE + 10 * ELEMENT)
    assert (target.name, target.unit, target.call) == ("arm64", objective, share * CALL)
    assert target.fit["measured"].startswith(f"{core} (")
    assert target.fit["measured"].endswith("cycles by LLVM 19.1.7") == (objective == "cycles")
    assert f"node {share * NODE:g}, element {share * ELEMENT:g}" in capsys.readouterr().out


def test_a_second_unit_is_added_to_what_the_target_has(half_a_cycle_each: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        profile_target, "probes", lambda: [Probe("Sigmoid", (shape,)) for shape in ((2, 3), (4, 50))] + [Probe("Sub", 2 * ((2, 3),))]
    )
    monkeypatch.setattr(emulator, "emulate", emulate_by_size)
    base, path = tmp_path / "base.toml", tmp_path / "both.toml"
    base.write_text(target_text(replace(TARGETS["arm64"], costs={"Sigmoid": TARGETS["arm64"].costs["Sigmoid"]}, second=None)))
    words = ["--core", "cortex-a55", "--objective", "cycles", "--second", "--out", str(path)]
    assert main([str(base), *words]) == 0
    both = find_target(str(path))
    assert replace(both, second=None) == find_target(str(base)), "what was there stays"
    assert both.second is not None and (both.second.unit, both.second.call) == ("cycles", 0.5 * CALL)
    assert both.second.costs["Sigmoid"].integer == {"node": 0.5 * NODE, "element": 0.5 * ELEMENT}
    assert both.second.fit["measured"].endswith("cycles by LLVM 19.1.7")


def test_kinds_that_are_measured_alone_leave_all_other_costs_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever measures some kinds again must have measured the others in the same way."""
    given = [
        Probe(op, shapes) for op, count in (("Sigmoid", 1), ("Mul", 2), ("Sub", 2)) for shapes in (((2, 3),) * count, ((4, 50),) * count)
    ]
    monkeypatch.setattr(profile_target, "probes", lambda: given)
    monkeypatch.setattr(emulator, "emulate", emulate_by_size)
    first, again, elsewhere = tmp_path / "first.toml", tmp_path / "again.toml", tmp_path / "elsewhere.toml"
    assert main(["arm64", "--core", "cortex-a72", "--out", str(first)]) == 0
    base = find_target(str(first))
    dear = {kind: Cost({"node": 9.0}, None if cost.integer is None else {"node": 7.0}) for kind, cost in base.costs.items()}
    first.write_text(target_text(replace(base, costs=dear)))
    assert main([str(first), "--core", "cortex-a72", "--only", "Mul", "--out", str(again)]) == 0
    assert find_target(str(again)) == replace(base, costs=dear | {"Mul": base.costs["Mul"]})
    assert main([str(first), "--core", "cortex-a53", "--only", "Mul", "--out", str(elsewhere)]) == 2
    assert "measured on: cortex-a72" in capsys.readouterr().err and not elsewhere.exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([HERE, "--only", "Conv"], "by the clock all operators are measured together"),
        (["--core", "cortex-a76", "--only", "Relu"], "no probes are of kind 'Relu' alone"),
        (["--core", "cortex-a76", "--second"], "the costs of target 'arm64' are instructions themselves"),
        (["z80"], "'z80' is not known"),
        (["absent.toml"], "the target cannot be read: No such file or directory"),
        (["--core", "z80"], "core 'z80' is not known"),
        (["--core", "cortex-a53", "--objective", "cycles"], "there is no model of the cycles of core 'cortex-a53'"),
        ([HERE, "--objective", "cycles"], "by the clock there are no cycles"),
        ([HERE, "--runs", "0"], "nothing would be measured"),
        ([HERE, "--visits", "0"], "nothing would be measured"),
        ([HERE, "--visits", "many"], "argument --visits: invalid int value: 'many'"),
        ([HERE, "--name", "my\nboard"], "'my\\nboard' is no name for a target"),
        ([HERE, "--name", " "], "' ' is no name for a target"),
        ([HERE, "--out", "board.txt"], "a target file ends in .toml"),
        ([HERE, "--out", "absent/x.toml"], "the folder of --out does not exist"),
        (["board.toml", "--out", "board.toml"], "TARGET and --out are the same file"),
        (["board.toml"], f"'board' is not for this machine, a {platform.machine()}"),
    ],
)
def test_mistakes_are_told_in_three_lines_before_anything_is_written(
    words: list[str], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    board = target_text(replace(BASE, name="board", architectures=("riscv64",)))
    Path("board.toml").write_text(board)
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {what}" and len(lines) <= 3
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("board.toml", board)]


def test_without_an_emulator_nothing_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profile_target, "probes", lambda: [Probe("Sigmoid", ((2, 3),))])
    assert main(["arm64", "--core", "cortex-a76", "--root", str(tmp_path / "absent"), "--out", str(tmp_path / "x.toml")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: the ARM64 emulation is not set up" and len(lines) <= 3
    assert not (tmp_path / "x.toml").exists()
