from __future__ import annotations

from pathlib import Path

import pytest

from converter.cli.flags import parse_flags, read_options
from converter.errors import UsageError
from converter.options import Options


def refusal(*words: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse_flags(words)
    assert caught.value.hint and len(str(caught.value).splitlines()) <= 3
    return caught.value


def test_two_paths_are_enough() -> None:
    flags = parse_flags(["a.onnx", "b.onnx"])
    assert (flags.source, flags.output) == (Path("a.onnx"), Path("b.onnx"))
    assert read_options(flags) == Options(), "whose defaults are written once"


def test_repeatable_flags_add_up() -> None:
    flags = parse_flags(["a", "b", "--exclude", "x*", "--exclude", "Conv", "--input-shape", "x:1", "--input-shape", "y:2"])
    options = read_options(flags)
    assert options.exclude == ("x*", "Conv") and options.input_shapes == {"x": (1,), "y": (2,)}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "IN.onnx, OUT.onnx"),
        (["a"], "OUT.onnx"),
        (["a", "b", "c"], "'c' is one path too many"),
        (["a", "b", "--exclud", "x"], "did you mean --exclude"),
        (["a", "b", "--calibration=x"], "did you mean --calib"),
        (["a", "b", "--sample", "3"], "did you mean --samples"),
        (["a", "b", "--zzz"], "there is no flag '--zzz'"),
        (["a", "b", "--samples", "many"], "'many' is not a whole number"),
        (["a", "b", "--samples"], "expected one argument"),
        (["a", "b", "--min-sqnr", "high"], "'high' is not a number"),
        (["a", "b", "-q", "-v"], "not allowed with"),
        (["a", "b", "--plan-in", "p", "--method", "mse"], "a plan that is read needs no method"),
    ],
)
def test_mistakes(words: list[str], text: str) -> None:
    assert text in str(refusal(*words))


def test_the_flag_of_a_bad_value_is_named() -> None:
    assert refusal("a", "b", "--seed", "1.5").where == "--seed"


@pytest.mark.parametrize(("word", "text"), [("--help", "Exit codes: 0 written and verified"), ("--version", "bridgequant ")])
def test_help_and_version_go_to_stdout(word: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_flags([word])
    assert caught.value.code == 0
    printed = capsys.readouterr()
    assert text in " ".join(printed.out.split()) + " " and printed.err == ""


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_flags(["--help"])
    text = capsys.readouterr().out
    flags = "calib samples require-data preprocess input-shape method bits target exclude min-sqnr seed threads json plan-out plan-in"
    assert all(f"--{flag}" in text for flag in [*flags.split(), "dry-run", "version", "quiet", "verbose"])
