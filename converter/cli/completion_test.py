"""Words that a shell is told, in a process of their own as a shell starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from converter.cli.completion import words_of_shell

ROOT = Path(__file__).parents[2]
COMMANDS = ("explain", "compare")


@pytest.mark.parametrize(
    ("line", "words", "program"),
    [
        ("bridgequant ", [], 1),
        ("bridgequant --me", [], 1),
        ("bridgequant a.onnx --me", ["a.onnx"], 1),
        ("bridgequant comp", [], 1),
        ("bridgequant compare", [], 1),
        ("bridgequant compare --", ["compare"], 2),
        ("bridgequant compare a.onnx --", ["compare", "a.onnx"], 2),
    ],
)
def test_a_finished_command_counts_as_the_program(line: str, words: list[str], program: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}.items():
        monkeypatch.setenv(name, value)
    assert words_of_shell(COMMANDS) == words and os.environ["_ARGCOMPLETE"] == str(program)


def test_without_a_shell_that_asks_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("_ARGCOMPLETE", raising=False)
    assert words_of_shell(COMMANDS) is None


def completed(line: str, folder: Path) -> set[str]:
    """What the program answers to a shell, as argcomplete's shell function calls it."""
    pytest.importorskip("argcomplete")
    answer = folder / "answer"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    env = {**os.environ, **asked, "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    program = "import sys; from converter.cli.main import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program], env=env, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return {word.strip() for word in answer.read_text().split("\n")}


def test_flags_of_the_conversion_and_of_a_command(tmp_path: Path) -> None:
    assert completed("bridgequant a.onnx b.onnx --plan", tmp_path) == {"--plan-in", "--plan-out"}
    found = completed("bridgequant compare a.onnx b.onnx --", tmp_path)
    assert "--model" in found and "--plan-in" not in found


def test_commands_and_models(tmp_path: Path) -> None:
    (tmp_path / "export.onnx").touch()
    (tmp_path / "notes.txt").touch()
    assert completed("bridgequant ex", tmp_path) == {"explain", "export", "export.onnx"}
