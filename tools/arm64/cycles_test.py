from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from converter.errors import ModelError, UsageError
from runtime_tests.emulation.count import Count
from runtime_tests.emulation.emulator import Machine
from runtime_tests.emulation.testing.stand_in import PER_REGION
from tools.arm64.block_cycles import Cycles
from tools.arm64.cycles import main, print_by_type, print_cycles
from tools.arm64.model_cycles import Amount, ModelCycles, NodeCycles, cycles_by_type

MACHINE = Machine("cortex-a55", ("asimd",), "1.32.0", "2.4.6", "3.11.2")
FLOAT = ModelCycles(
    Count(Path("a[b].onnx"), "0a", (4_000_000,), MACHINE),
    "19.1.7",
    Cycles(4_000_000, 8_000_000.0, 3_980_000),
    Amount(10_000, 20_000.0),
    (
        NodeCycles("first", "Conv", "float32[1]", Amount(2_000_000, 3_000_000.0), None),
        NodeCycles("second", "Softmax", "float32[1]", Amount(500_000, 2_500_000.0), None),
        NodeCycles("third", "Conv", "float32[1]", Amount(1_000_000, 1_000_000.0), None),
        NodeCycles("fourth", "Strange", "float32[1]", None, "it does not run alone\nat all"),
    ),
)
INTEGER = ModelCycles(
    Count(Path("c.onnx"), "0c", (1_000_000,), MACHINE),
    "19.1.7",
    Cycles(1_000_000, 4_000_000.0, 995_000),
    Amount(10_000, 20_000.0),
    (NodeCycles("first", "QLinearConv", "int8[1]", Amount(900_000, 3_600_000.0), None),),
)


def rows(console: Console) -> list[list[str]]:
    assert isinstance(console.file, io.StringIO)
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in console.file.getvalue().splitlines() if "│" in line]


def test_types_are_summed_and_ordered_by_their_cycles() -> None:
    assert list(cycles_by_type(FLOAT.nodes).items()) == [
        ("Conv", (2, Amount(3_000_000, 4_000_000.0))),
        ("Softmax", (1, Amount(500_000, 2_500_000.0))),
        ("Strange", (1, Amount(0, 0.0))),
    ]


def test_the_remainder_is_what_neither_nodes_nor_the_call_take() -> None:
    assert FLOAT.remainder == Amount(490_000, 1_480_000.0)


def test_the_table_has_instructions_and_cycles_with_their_ratios() -> None:
    console = Console(file=io.StringIO(), width=120)
    print_cycles(console, [FLOAT, INTEGER])
    assert rows(console) == [
        ["a[b].onnx", "4.000", "1.000", "8.000", "1.000", "0.50", "99.5%"],
        ["c.onnx", "1.000", "0.250", "4.000", "0.500", "0.25", "99.5%"],
    ]
    assert isinstance(console.file, io.StringIO)
    assert "cortex-a55 (asimd), ONNX Runtime 1.32.0, one thread; cycles by LLVM 19.1.7 for cortex-a55" in console.file.getvalue()


def test_types_of_two_models_stand_side_by_side() -> None:
    console = Console(file=io.StringIO(), width=120)
    print_by_type(console, [FLOAT, INTEGER])
    assert rows(console) == [
        ["Conv", "2", "3.000", "4.000", "0.75", "", "", "", ""],
        ["QLinearConv", "", "", "", "", "1", "0.900", "3.600", "0.25"],
        ["Softmax", "1", "0.500", "2.500", "0.20", "", "", "", ""],
        ["Strange", "1", "0.000", "0.000", "", "", "", "", ""],
        ["call of the runtime", "", "0.010", "0.020", "0.50", "", "0.010", "0.020", "0.50"],
        ["remainder", "", "0.490", "1.480", "0.33", "", "0.090", "0.380", "0.24"],
        ["whole model", "", "4.000", "8.000", "0.50", "", "1.000", "4.000", "0.25"],
    ]
    assert isinstance(console.file, io.StringIO)
    assert "not measured: Strange fourth: it does not run alone\n" in console.file.getvalue()


def test_the_command_writes_what_it_prints(
    model: Path, no_emulator: None, half_a_cycle_each: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model), str(model), "--json", str(tmp_path / "c.json")]) == 0
    assert "neoverse-n1" in capsys.readouterr().out
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["llvm"] == {"version": "19.1.7", "processor": "neoverse-n1"}
    first, second = content["models"]
    assert first == second
    assert (first["instructions"], first["cycles"], first["judged"]) == (PER_REGION, PER_REGION / 2, PER_REGION)
    assert "nodes" not in first


def test_every_node_of_the_optimised_graph_has_its_cycles(
    model: Path, no_emulator: None, half_a_cycle_each: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node takes what its run takes beyond a run of nothing: here, where every run takes the same, none."""
    assert main([str(model), "--per-op", "--core", "cortex-a55", "--json", str(tmp_path / "c.json")]) == 0
    assert "LayerNormalization" in capsys.readouterr().out
    (content,) = json.loads((tmp_path / "c.json").read_text())["models"]
    assert {node["error"] for node in content["nodes"]} == {None}
    assert {node["amount"]["cycles"] for node in content["nodes"]} == {0.0}
    assert content["call"] == {"instructions": PER_REGION, "cycles": PER_REGION / 2}
    assert content["remainder"] == {"instructions": 0, "cycles": 0.0}
    assert sum(each["nodes"] for each in content["types"]) == len(content["nodes"])


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["{model}", "--core", "cortex-a53"], "there is no model of the cycles of core 'cortex-a53'"),
        (["{model}", "--core", "z80", "--per-op"], "there is no model of the cycles of core 'z80'"),
        (["absent.onnx"], "the input file does not exist"),
        (["absent.onnx", "--per-op"], "the input file does not exist"),
        (["{model}", "--json", "{model}"], "MODEL 1 and --json are the same file"),
        (["{model}", "--runtime", "2.0"], "there is no emulated ONNX Runtime '2.0'"),
        (["{model}", "--root", "absent"], "the ARM64 emulation is not set up"),
    ],
)
def test_mistakes_are_told_in_three_lines(
    words: list[str], what: str, model: Path, half_a_cycle_each: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(model=model) for word in words]) in (UsageError.exit_code, ModelError.exit_code)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {what}"
    assert len(lines) <= 3


def test_without_llvm_nothing_is_emulated(
    model: Path, no_emulator: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([str(model)]) == UsageError.exit_code
    assert capsys.readouterr().err.splitlines()[0] == "error: LLVM 19 is not installed"
