"""What prices predict beside what is counted, for float models and those made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from converter.targets import find_target
from converter.targets.target_file import target_text
from converter.testing.sketch import Sketch
from runtime_tests.emulation import emulator
from runtime_tests.emulation.environment import environment
from runtime_tests.emulation.setup import missing_steps
from runtime_tests.emulation.testing.stand_in import PER_REGION, emulate_here
from tools.profile.check import Comparison, main

PRICES = """
name = "round"
description = "round prices"
unit = "instructions"
architectures = ["bench"]
activations = "int8"
call = 500

[quantize]
node = 20
element = 2
[dequantize]
node = 10
element = 1
[other]
node = 700

[costs.PointwiseConv]
float = { node = 3000 }
integer = { node = 200 }
[costs.Sigmoid]
float = { node = 1200 }
integer = { node = 100 }
"""
ELEMENTS = 4 * 3 * 3
FLOAT = 500 + 3000 + 1200 + 700
INTEGER = 500 + 200 + 100 + 700 + (20 + 2 * ELEMENTS) + (10 + 1 * ELEMENTS)
"""A Q in front of the convolution, a DQ in front of the Softplus."""


@pytest.fixture
def round_target(tmp_path: Path) -> Path:
    path = tmp_path / "round.toml"
    path.write_text(PRICES)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A convolution, a Sigmoid and a Softplus, which has no price of its own."""
    s = Sketch(0)
    x = s.add("Sigmoid", s.conv(s.input("x", 1, 4, 3, 3), 4, size=1))
    path = tmp_path / "net[b].onnx"
    onnx.save(ir.to_proto(s.model(s.add("Softplus", x))), path)
    return path


@pytest.fixture
def no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest's code runs here, and every model takes as many instructions."""
    monkeypatch.setattr(emulator, "emulate", emulate_here)


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")]


def test_the_error_is_relative_to_the_count() -> None:
    assert Comparison("m", 9.0, 10.0).error == pytest.approx(-0.1)
    assert Comparison("m", 15.0, 10.0).error == pytest.approx(0.5)


def test_float_and_integer_models_are_predicted_by_the_prices_of_their_nodes(
    model: Path, round_target: Path, no_emulator: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model), str(model), "--target", str(round_target)]) == 0
    expected = [
        ["net[b]", f"{FLOAT / 1e6:.1f}", f"{PER_REGION / 1e6:.1f}", f"{FLOAT / PER_REGION - 1:+.1%}"],
        ["net[b] int8", f"{INTEGER / 1e6:.1f}", f"{PER_REGION / 1e6:.1f}", f"{INTEGER / PER_REGION - 1:+.1%}"],
    ]
    assert rows(capsys.readouterr().out) == 2 * expected


def test_a_target_in_cycles_is_compared_with_cycles(
    model: Path, round_target: Path, no_emulator: None, half_a_cycle_each: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """An instruction takes half a cycle here."""
    round_target.write_text(PRICES.replace('unit = "instructions"', 'unit = "cycles"'))
    assert main([str(model), "--target", str(round_target), "--core", "cortex-a55"]) == 0
    printed = capsys.readouterr().out
    assert "million cycles" in printed
    assert [row[2] for row in rows(printed)] == 2 * [f"{PER_REGION / 2 / 1e6:.1f}"]
    assert [row[3] for row in rows(printed)] == [f"{cost / (PER_REGION / 2) - 1:+.1%}" for cost in (FLOAT, INTEGER)]


def test_the_second_unit_is_compared_by_its_own_prices(
    model: Path, round_target: Path, no_emulator: None, half_a_cycle_each: None, capsys: pytest.CaptureFixture[str]
) -> None:
    target = find_target(str(round_target))
    cycles = replace(target, unit="cycles", call=target.call + 100.0)
    round_target.write_text(target_text(replace(target, second=cycles)))
    assert main([str(model), "--target", str(round_target), "--core", "cortex-a55", "--second"]) == 0
    printed = capsys.readouterr().out
    assert "million cycles" in printed
    assert [row[2] for row in rows(printed)] == 2 * [f"{PER_REGION / 2 / 1e6:.1f}"]
    assert [row[3] for row in rows(printed)] == [f"{(cost + 100) / (PER_REGION / 2) - 1:+.1%}" for cost in (FLOAT, INTEGER)]


@pytest.mark.parametrize(("within", "code"), [("4.41", 0), ("4.39", 6)])
def test_the_worst_prediction_decides(
    within: str, code: int, model: Path, round_target: Path, no_emulator: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of the float model: 5400 where 1000 are counted."""
    assert FLOAT == 5400
    assert main([str(model), "--target", str(round_target), "--within", within]) == code
    printed = capsys.readouterr()
    assert len(rows(printed.out)) == 2
    lines = printed.err.splitlines()
    assert lines[:1] == (["error: net[b] is predicted +440.00% off, 439% were allowed"] if code else []) and len(lines) <= 3


def test_too_low_is_as_bad_as_too_high(model: Path, round_target: Path, no_emulator: None, capsys: pytest.CaptureFixture[str]) -> None:
    """1000 are counted of each: 100 + 500 + 300 + 200 is closer than 100 + 10 + 10 + 200, a Q of 92 and a DQ of 46."""
    text = PRICES
    for old, new in (("500", "100"), ("3000", "500"), ("1200", "300"), ("= 700", "= 200"), ("= 200 }", "= 10 }"), ("= 100 }", "= 10 }")):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    round_target.write_text(text)
    assert main([str(model), "--target", str(round_target), "--within", "0.3"]) == 6
    assert "error: net[b] int8 is predicted -54.20% off, 30% were allowed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        ([], 2, "the following arguments are required: FLOAT.onnx"),
        (["{model}", "--target", "x86"], 2, "the costs of target 'x86' are picoseconds, not instructions or cycles"),
        (["{model}", "--target", "x86", "--second"], 2, "target 'x86' has no second unit"),
        (["{model}", "--target", "z80"], 2, "'z80' is not known"),
        (["{model}", "--core", "z80"], 2, "core 'z80' is not known"),
        (["{model}", "--method", "guess"], 2, "'guess' is not known"),
        (["{model}", "--within", "much"], 2, "argument --within: invalid float value: 'much'"),
        (["{model}", "--within", "nan"], 2, "nan is no share that a prediction may be off by"),
        (["{model}", "--within", "0"], 2, "0 is no share that a prediction may be off by"),
        (["{model}", "--root", "absent"], 2, "the ARM64 emulation is not set up"),
        (["absent.onnx"], 3, "the input file does not exist"),
    ],
)
def test_mistakes_are_told_in_three_lines(words: list[str], code: int, what: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word.format(model=model) for word in words]) == code
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert lines[0] == f"error: {what}" and len(lines) <= 3
    assert not rows(printed.out)


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_steps(environment())), reason="the ARM64 emulation is not set up (python -m tools.arm64.setup)")
def test_the_prices_of_arm64_predict_what_the_emulator_counts(tmp_path: Path) -> None:
    s = Sketch(0)
    x = s.conv(s.silu(s.conv(s.input("x", 1, 16, 16, 16), 16, size=1, outputs=32)), 32, size=1, outputs=16)
    onnx.save(ir.to_proto(s.model(s.add("Flatten", s.add("GlobalAveragePool", x)))), tmp_path / "small.onnx")
    assert main([str(tmp_path / "small.onnx"), "--within", "0.15"]) == 0


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_steps(environment())), reason="the ARM64 emulation is not set up (python -m tools.arm64.setup)")
@pytest.mark.parametrize(("size", "stride", "pad"), [(7, 2, 3), (5, 4, 2), (4, 4, 0)])
def test_stems_of_wide_kernels_are_predicted_within_a_tenth(size: int, stride: int, pad: int, tmp_path: Path) -> None:
    s = Sketch(0)
    weight = s.normal(32, 3, size, size)
    x = s.add("Conv", s.input("x", 1, 3, 96, 96), weight, s.normal(32), strides=[stride] * 2, pads=[pad] * 4)
    x = s.conv(s.silu(x), 32, size=5, group=32)
    x = s.conv(s.silu(s.conv(x, 32, size=1, outputs=64)), 64, size=1, outputs=32)
    onnx.save(ir.to_proto(s.model(s.add("Flatten", s.add("GlobalAveragePool", x)))), tmp_path / "stem.onnx")
    assert main([str(tmp_path / "stem.onnx"), "--within", "0.1"]) == 0
