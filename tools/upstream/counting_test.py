"""Blocks of instructions tell what they are for, and each case gets the counts of its own kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from converter.errors import UsageError
from converter.targets import find_target
from converter.testing.sketch import settings_for
from runtime_tests.emulation.environment import environment
from runtime_tests.emulation.setup import missing_steps
from tools.arm64.split import Piece
from tools.profile.clock import prepared
from tools.profile.probes import feeds
from tools.upstream import __main__ as command
from tools.upstream import bounds, counting
from tools.upstream.__main__ import main, markdown
from tools.upstream.counting import CODES, REST, SUMS, Taken, counted, part_of
from tools.upstream.models import CASES, amount
from tools.upstream.proposals import PROPOSALS

ARM = find_target("arm64")
BY_NAME = {case.name: case for case in CASES}
CALL = 1000

SDOT, SDOT_LANE, SMMLA = "20 94 82 4e", "90 e0 80 4f", "20 a4 82 4e"
SMLAL, SMLAL2, SMULL = "20 80 22 0e", "20 80 22 4e", "20 c0 22 0e"
SCVTF, FCVTNS = "20 d8 21 4e", "c5 a8 21 4e"
NOP, ONE_FCVTNS, UCVTF, WIDER_SMLAL = "1f 20 03 d5", "00 00 20 1e", "20 d8 21 6e", "20 80 62 0e"


@pytest.mark.parametrize(
    ("instructions", "part"),
    [
        *(([NOP, each], SUMS) for each in (SDOT, SDOT_LANE, SMMLA, SMLAL, SMLAL2, SMULL)),
        *(([each, NOP], CODES) for each in (SCVTF, FCVTNS)),
        ([FCVTNS, SDOT], SUMS),
        ([NOP], REST),
        ([ONE_FCVTNS, UCVTF, WIDER_SMLAL], REST),  # scalars, unsigned, 16 bits
    ],
)
def test_a_block_is_for_sums_for_codes_or_for_the_rest(instructions: Sequence[str], part: str) -> None:
    """Encodings as LLVM 19 writes them (``llvm-mc -show-encoding``)."""
    assert part_of(bytes.fromhex("".join(instructions))) == part


def test_a_case_gets_the_counts_of_its_own_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q, DQ and changes of layout around them are left out, and a run of nothing is taken off."""
    cases = [BY_NAME["linear_as_conv"], BY_NAME["silu"]]
    monkeypatch.setattr(counting, "take_apart", taken_apart_here)
    found, ran = counted(cases, "cortex-a76", environment())
    assert ran == "a machine"
    assert found == {"linear_as_conv": Taken(2 * 5, 3 * 7, 1 * 11 - CALL), "silu": Taken(2 * 2 * 5, 2 * 3 * 7, 2 * (1 * 11 - CALL))}


def taken_apart_here(path: Path, core: str, *, env: Any, blocks: bool) -> Any:
    """Every node takes the same: two instructions for sums, 5 times; three for codes, 7 times; one for the rest, 11 times."""
    assert blocks
    model = onnx.load(path)
    optimised, _, _ = prepared(model, feeds(ir.from_proto(model)), settings_for(ARM))
    parts = [part(node) for node in optimised.graph.node]
    executed = {bytes.fromhex(SDOT + NOP): 5, bytes.fromhex(NOP + FCVTNS + NOP): 7, bytes.fromhex(NOP): 11}
    run = SimpleNamespace(error=None, blocks=(executed,))
    return SimpleNamespace(
        parts=parts, alone=[run] * len(parts), bound_call=SimpleNamespace(instructions=(CALL,)), whole=SimpleNamespace(machine="a machine")
    )


def part(node: onnx.NodeProto) -> Piece:
    model = onnx.ModelProto()
    model.graph.node.append(node)
    return Piece(node.name, node.op_type, "", model)


# The table


def test_the_table_says_what_each_model_takes_for_a_multiply_accumulate_and_what_it_could_take() -> None:
    (proposal,) = [each for each in PROPOSALS if each.name == "linear"]
    text = markdown([proposal], {"linear": Taken(1.2e6, 0.4e6, 0.6e6), "linear_as_conv": Taken(1.2e6, 0.2e6, 0.1e6)})
    first, second = text.splitlines()[2:4]
    cells = "linear layers in the kernel of convolutions | `linear` | Gemm, 1024 rows, 64 to 192 | 2.200 | multiply-accumulate | 0.175"
    assert first == f"| {cells} | 0.095 | 0.032 | 0.048 | 0.098 |"
    assert second.startswith("|  | `linear_as_conv` |")


def test_operators_of_single_numbers_have_no_parts_and_a_model_beside_no_bound() -> None:
    (proposal,) = [each for each in PROPOSALS if each.name == "table"]
    text = markdown([proposal], dict.fromkeys(("sigmoid", "silu", "relu"), Taken(0.0, 0.0, 131072.0)))
    rows = text.splitlines()[2:5]
    assert [row.split(" | ")[5:] for row in rows] == [["1.00", "", "", "", "0.69 |"]] * 2 + [["1.00", "", "", "", " |"]]


def test_every_case_belongs_to_one_proposal() -> None:
    assert sorted(case.name for proposal in PROPOSALS for case in proposal.cases) == sorted(BY_NAME)


# The command


def test_models_are_written_one_file_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "require", lambda env: None)
    monkeypatch.setattr(command, "counted", lambda cases, core, env: ({case.name: Taken(0.0, 0.0, 1.0) for case in cases}, "a machine"))
    assert main(["--out", str(tmp_path / "models"), "--only", "table", "softmax"]) == 0
    written = {path.stem for path in (tmp_path / "models").iterdir()}
    assert written == {"sigmoid", "silu", "relu", "softmax", "softmax_codes"}
    for name in written:
        onnx.checker.check_model(onnx.load(tmp_path / "models" / f"{name}.onnx"), full_check=True)
    assert capsys.readouterr().out.startswith("a machine\n\n| proposal |")


@pytest.mark.parametrize(("words", "complaint"), [(["--core", "m4"], "m4"), (["--only", "nothing"], "nothing"), (["--runtime", "2"], "2")])
def test_what_cannot_be_counted_is_said(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == UsageError.exit_code
    assert complaint in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_steps(environment())), reason="the ARM64 emulation is not set up (python -m tools.arm64.setup)")
def test_on_the_emulated_core_a_table_operator_is_far_above_its_bound_and_sums_near_theirs() -> None:
    cases = [BY_NAME["sigmoid"], BY_NAME["linear_as_conv"]]
    found, ran = counted(cases, "cortex-a76", environment())
    assert "cortex-a76" in ran
    assert found["sigmoid"].whole / amount(cases[0]) > 5 * bounds.TABLE
    sums = found["linear_as_conv"].sums / amount(cases[1])
    assert sums == pytest.approx(bounds.product(1024, 0) / 1024, rel=0.1)
    assert found["linear_as_conv"].codes > 0
