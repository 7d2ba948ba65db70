"""What types of kernels take and what proposals win add up to whole models."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from converter.errors import UsageError
from runtime_tests.emulation.environment import environment
from tools.arm64.split import Piece
from tools.upstream import bounds, gains
from tools.upstream.gains import Whole, by_type_markdown, gains_markdown, gains_of, main, taken_apart
from tools.upstream.kernels import Kernel
from tools.upstream.proposals import PROPOSALS


def kernel(op_type: str, taken: float, elements: int = 1_000_000) -> Kernel:
    shapes = {"x": (elements,), "y": (elements,)}
    return Kernel(op_type, taken, ("x",), ("y",), shapes, frozenset(), frozenset(shapes), {})


def whole(name: str, *kernels: Kernel, beyond: float = 0.0) -> Whole:
    return Whole(name, sum(each.instructions for each in kernels) + beyond, kernels, "a machine")


ONE = whole("one", kernel("Softmax", 9e6), kernel("Softmax", 8e6), kernel("Transpose", 2e6), kernel("Slice", 1e5), beyond=3e5)
OTHER = whole("other", kernel("QuantizeLinear", 2.8e6), kernel("Gather", 2e5))


def test_types_add_up_to_the_whole_and_those_that_take_little_are_one_row() -> None:
    assert by_type_markdown([ONE, OTHER]).splitlines() == [
        "| kernel | one | other |",
        "| --- | ---: | ---: |",
        "| Softmax | 17.0 |  |",
        "| QuantizeLinear |  | 2.8 |",
        "| Transpose | 2.0 |  |",
        "| all others | 0.1 | 0.2 |",
        "| between nodes | 0.3 |  |",
        "| whole model | 19.4 | 3.0 |",
    ]


def test_what_is_won_is_what_is_taken_less_the_bounds() -> None:
    lines = gains_markdown([ONE, OTHER], [gains_of(ONE), gains_of(OTHER)]).splitlines()
    rows = {line.split(" | ")[0][2:]: line[2:-2].split(" | ")[1:] for line in lines}
    titles = {proposal.name: proposal.title for proposal in PROPOSALS}
    assert rows[titles["softmax"]] == [f"17.0 → {2 * bounds.SOFTMAX:.1f} ({17 - 2 * bounds.SOFTMAX:.1f})", ""]
    assert rows[titles["quantize"]] == ["", f"2.8 → {bounds.QUANTIZED:.1f} ({2.8 - bounds.QUANTIZED:.1f})"]
    won = (17 - 2 * bounds.SOFTMAX, 2.8 - bounds.QUANTIZED)
    assert rows["all together would win"] == [f"{each:.1f}" for each in won]
    assert rows["whole model with all"] == [f"{19.4 - won[0]:.1f}", f"{3.0 - won[1]:.1f}"]


def piece(op_type: str) -> Piece:
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [8])] for name in "xy"]
    graph = helper.make_graph([helper.make_node(op_type, ["x"], ["y"])], "g", *ends)
    return Piece(op_type, op_type, "float32[8]", helper.make_model(graph))


def test_of_every_node_a_run_of_nothing_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def take_apart(path: Path, core: str, *, inputs: Path | None, env: Any) -> Any:
        runs = [SimpleNamespace(error=None, instructions=(500,)), SimpleNamespace(error="it does not run alone", instructions=())]
        whole = SimpleNamespace(median=1000.0, machine="a machine")
        parts = (piece("Relu"), piece("Softmax"))
        return SimpleNamespace(whole=whole, bound_call=SimpleNamespace(instructions=(100,)), parts=parts, alone=tuple(runs))

    monkeypatch.setattr(gains, "take_apart", take_apart)
    found = taken_apart(Path("network.onnx"), "cortex-a76", environment())
    assert (found.name, found.instructions, found.ran) == ("network", 1000.0, "a machine")
    assert [(k.op_type, k.instructions, k.elements) for k in found.kernels] == [("Relu", 400.0, 8), ("Softmax", 0.0, 8)]


def test_the_command_prints_both_tables_and_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gains, "require", lambda env: None)
    monkeypatch.setattr(gains, "taken_apart", lambda path, core, env, inputs: ONE if path.stem == "one" else OTHER)
    file = tmp_path / "gains.json"
    assert main(["one.onnx", "other.onnx", "--json", str(file)]) == 0
    assert capsys.readouterr().out.startswith("a machine; millions of instructions\n\n| kernel | one | other |\n")
    first, second = json.loads(file.read_text())
    assert first["gains"]["softmax"] == {"nodes": 2, "today": 17e6, "bound": 2e6 * bounds.SOFTMAX}
    assert second["gains"]["softmax"]["nodes"] == 0


def test_results_are_not_written_over_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "one.onnx"
    onnx.save(piece("Relu").model, model)
    assert main([str(model), "--json", str(model)]) == UsageError.exit_code
    assert "--json" in capsys.readouterr().err
