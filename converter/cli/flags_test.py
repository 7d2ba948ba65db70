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
        (["a", "b", "--exclude", "Conv", "Gemm"], "a flag takes one value, and is repeated for more"),
        (["a", "--output", "b"], "did you mean IN.onnx and OUT.onnx, which need no flag"),
        (["a", "b", "--nodes_to_exclude", "x"], "did you mean --exclude"),
        (["quantize", "a", "b"], "did you mean convert"),
        (["verify", "a", "b"], "did you mean validate"),
        (["comapre", "a", "b"], "did you mean compare"),
        (["explain", "a", "--json", "b"], "--json with explain"),
        (["explain", "a", "--ort"], "--ort with explain"),
        (["a", "b", "--dry-run", "--ort"], "--ort with --dry-run"),
        (["a", "/dev/null", "--ort"], "--ort with /dev/null"),
        (["a", "b", "--exclud", "x"], "did you mean --exclude"),
        (["a", "b", "--calibration=x"], "did you mean --calib"),
        (["a", "b", "--sample", "3"], "did you mean --samples"),
        (["a", "b", "--calibrate-method=Entropy"], "did you mean --method"),
        (["a", "b", "--activation-type", "QInt8"], "did you mean --target, which decides about types"),
        (["a", "b", "--op-types-to-quantize", "Conv"], "did you mean --exclude, which names what stays float"),
        (["a", "b", "--per-channel"], "leave it out: weights have a scale for each channel anyway"),
        (["a", "b", "--calib", "images/0.jpg", "images/1.jpg"], "give the folder of the pictures: --calib images"),
        (["a", "b", "--max-drop", "0.5%"], "give digits alone, such as 0.5;"),
        (["a", "b", "--zzz"], "there is no flag '--zzz'"),
        (["a", "b", "--samples", "many"], "'many' is not a whole number"),
        (["a", "b", "--samples", "many"], "give digits alone, such as 8;"),
        (["", "b"], "the path is empty"),
        (["a", "b", "--samples"], "expected one argument"),
        (["a", "b", "--min-sqnr", "high"], "'high' is not a number"),
        (["a", "b", "-q", "-v"], "not allowed with"),
        (["a", "b", "--plan-in", "p", "--prefer", "size"], "a plan that is read says how weights are stored"),
        (["a", "b", "--plan-in", "p", "--method", "mse"], "a plan that is read needs no method"),
    ],
)
def test_mistakes(words: list[str], text: str) -> None:
    assert text in str(refusal(*words))


def test_the_flag_of_a_bad_value_is_named() -> None:
    assert refusal("a", "b", "--seed", "1.5").where == "--seed"


def helped(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a call that asks for help prints."""
    with pytest.raises(SystemExit) as caught:
        parse_flags(words)
    assert caught.value.code == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def test_the_version_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert helped(capsys, "--version").startswith("bridgequant ")


def test_help_is_one_screen_of_ten_options_the_groups_of_others_and_the_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = helped(capsys, "--help")
    explained = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    assert len(explained) == 10 and {"--calib", "--target", "--min-sqnr", "--report"} <= set(explained)
    assert len(text.splitlines()) <= 50, "what a terminal of usual size shows"
    assert all(f"  {command} " in text for command in ("convert", "explain", "compare", "doctor", "validate", "evaluate", "export"))
    others = text[text.index("--help all") :]
    assert all(f"{group}: " in others for group in ("calibration", "conversion", "plan and report"))
    flags = "require-data method observer placement prefer full loss latency seed threads plan-out plan-in dry-run version quiet verbose"
    assert all(f"--{flag}" in others for flag in flags.split()), "all others are named"


def test_help_all_explains_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys, "--help", "all")
    flags = "calib samples require-data preprocess input-shape method bits target exclude min-sqnr seed threads json plan-out plan-in"
    lines = [line.strip() for line in text.splitlines()]
    assert all(any(line.startswith(f"--{flag}") for line in lines) for flag in [*flags.split(), "dry-run", "placement", "report"])
    assert "Exit codes: 0 written and verified" in text


@pytest.mark.parametrize("words", [["help"], ["-h"], ["convert", "--help"], ["explain", "--help"]])
def test_other_ways_to_ask_for_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert helped(capsys, *words).startswith("usage: bridgequant")


def test_the_help_of_explain_names_what_it_heeds_alone(capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys, "explain", "--help")
    assert text.startswith("usage: bridgequant explain IN.onnx [options]") and "bridge blocks and layers" in text
    assert all(flag in text for flag in ("--calib", "--samples", "--input-shape", "--target", "--quiet"))
    assert not any(word in text for word in ("OUT.onnx", "--bits", "--report", "--explain", "commands:"))


def test_commands_of_a_conversion_are_words_in_front_of_its_flags() -> None:
    assert parse_flags(["convert", "a", "b"]) == parse_flags(["a", "b"])
    assert parse_flags(["explain", "a"]) == parse_flags(["a", "--explain"])
