from __future__ import annotations

import json
from pathlib import Path

import pytest

from converter.errors import UsageError
from tools.arm64.compare import main


def test_the_command(model: Path, no_emulator: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), "--core", "max", "--samples", "2", "--json", str(tmp_path / "c.json")]) == 0
    assert "2 of 2" in capsys.readouterr().out
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["reference"] == "max"
    assert [each["output"] for each in content["differences"]] == ["logits"]


@pytest.mark.parametrize("words", [["--target", "mips"], ["--samples", "0"], ["--core", "mips"], ["--inputs", "absent.npz"]])
def test_mistakes_are_told_in_three_lines(words: list[str], model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), *words]) == UsageError.exit_code
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) == 3
