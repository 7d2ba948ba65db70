"""Words that call other commands."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from converter.cli.subcommands import SUBCOMMANDS, subcommand


@pytest.mark.parametrize("words", [[], ["in.onnx", "out.onnx"], ["--help"], ["./compare", "out.onnx"]])
def test_anything_else_is_a_conversion(words: list[str]) -> None:
    assert subcommand(words) is None


@pytest.mark.parametrize("word", SUBCOMMANDS)
def test_each_word_has_a_command_that_takes_the_rest(word: str) -> None:
    found = subcommand([word, "a", "b"])
    assert found is not None and found == (importlib.import_module(SUBCOMMANDS[word]).main, ["a", "b"])


@pytest.mark.parametrize("word", SUBCOMMANDS)
def test_each_command_explains_itself(word: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "converter", word, "--help"], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert result.returncode == 0 and result.stdout.startswith(f"usage: bridgequant {word}") and result.stderr == ""
