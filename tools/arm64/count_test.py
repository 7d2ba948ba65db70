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
from tools.arm64.count import counts_json, main, print_counts

MACHINE = Machine("cortex-a53", ("asimd",), "1.23.2", "2.4.6", "3.11.2")
COUNTS = [Count(Path("a[b].onnx"), "0a", (2_000_000, 2_000_010, 1_999_000), MACHINE), Count(Path("c.onnx"), "0c", (500_000,), MACHINE)]


def test_the_table_has_millions_and_ratios() -> None:
    console = Console(file=io.StringIO(), width=100)
    print_counts(console, COUNTS)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "cortex-a53 (asimd), ONNX Runtime 1.23.2, one thread" in text
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]
    assert rows == [["a[b].onnx", "2.000", "1.000"], ["c.onnx", "0.500", "0.250"]]


def test_the_json_has_every_run() -> None:
    content = json.loads(counts_json(COUNTS))
    assert content["machine"]["core"] == "cortex-a53"
    assert content["models"][0] == {
        **{"model": "a[b].onnx", "sha256": "0a", "instructions": [2_000_000, 2_000_010, 1_999_000]},
        **{"median": 2_000_000, "ratio": 1.0},
    }
    assert content["models"][1]["ratio"] == 0.25


def test_the_command_writes_what_it_prints(model: Path, no_emulator: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), str(model), "--core", "max,sme=off", "--json", str(tmp_path / "c.json")]) == 0
    assert "0.001" in capsys.readouterr().out
    content = json.loads((tmp_path / "c.json").read_text())
    assert [each["median"] for each in content["models"]] == [PER_REGION, PER_REGION]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["{model}", "--core", "z80"], "core 'z80' is not known"),
        (["{model}", "--runs", "0"], "there is nothing to count"),
        (["{model}", "{model}", "--per-op"], "--per-op takes one model, not 2"),
        (["{model}", "--inputs", "absent.npz"], "the inputs cannot be read"),
        (["absent.onnx"], "the input file does not exist"),
        (["{model}", "--json", "{model}"], "MODEL 1 and --json are the same file"),
        (["{model}", "--runs", "many"], "argument --runs: invalid int value: 'many'"),
        (["{model}", "--root", "absent"], "the ARM64 emulation is not set up"),
    ],
)
def test_mistakes_are_told_in_three_lines(words: list[str], what: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word.format(model=model) for word in words]) in (UsageError.exit_code, ModelError.exit_code)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {what}"
    assert len(lines) <= 3
