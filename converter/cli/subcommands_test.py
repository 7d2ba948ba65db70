"""Words that call other commands."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from converter.cli.main import main
from converter.cli.subcommands import SUBCOMMANDS, subcommand

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("words", [[], ["in.onnx", "out.onnx"], ["--help"], ["./compare", "out.onnx"]])
def test_anything_else_is_a_conversion(words: list[str]) -> None:
    assert subcommand(words) is None


@pytest.mark.parametrize("word", SUBCOMMANDS)
def test_each_word_has_a_command_that_takes_the_rest(word: str) -> None:
    assert subcommand([word, "a", "b"]) == (word, ["a", "b"])
    assert callable(importlib.import_module(SUBCOMMANDS[word].module).main)


@pytest.mark.parametrize("word", SUBCOMMANDS)
def test_an_installation_has_the_module_of_each(word: str) -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    module = ROOT / (SUBCOMMANDS[word].module.replace(".", "/") + ".py")
    assert module.relative_to(ROOT).parts[0] in wheel["packages"] and module.exists()
    assert not any(fnmatch(module.name, pattern) for pattern in wheel["exclude"])


def test_a_package_that_is_left_out_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="timm")

    monkeypatch.setattr(importlib, "import_module", missing)
    code = main(["export", "--help"])
    monkeypatch.undo()
    error = capsys.readouterr().err
    assert code == 2 and "'timm' is not installed" in error and "pip install 'bridgequant[models]'" in error


@pytest.mark.parametrize("word", SUBCOMMANDS)
def test_each_command_explains_itself(word: str) -> None:
    result = subprocess.run([sys.executable, "-m", "converter", word, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0 and result.stdout.startswith(f"usage: bridgequant {word}") and result.stderr == ""
