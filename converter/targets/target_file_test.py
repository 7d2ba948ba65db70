from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from converter.errors import UsageError
from converter.targets import TARGETS, Cost
from converter.targets.target_file import read_target, target_text

BOARD = """
name = "board"
description = "a board of mine"
unit = "nanoseconds"
activations = "int8"

[session_settings.x86_64]
"session.qdqisint8allowed" = "1"

[quantize]
node = 7
element = 2.5
[dequantize]
element = 1.25

[costs.Conv]
float = { mac = 0.5, element = 1 }
integer = { mac = 0.125 }

[costs.Softmax]
float = { element = 9.0 }

[fit]
core = "mine"
"""


def board(tmp_path: Path, text: str = BOARD) -> Path:
    path = tmp_path / "board.toml"
    path.write_text(text)
    return path


def test_a_target_by_hand(tmp_path: Path) -> None:
    target = read_target(board(tmp_path), "here")
    assert (target.name, target.description, target.unit) == ("board", "a board of mine", "nanoseconds")
    assert (target.signed_activations, target.depthwise_weight_bits, target.largest_pair, target.architectures) == (True, 8, None, ())
    assert (target.quantize(10), target.dequantize(10), target.call, target.other) == (32.0, 12.5, 0.0, {})
    assert target.costs["Conv"].float == {"mac": 0.5, "element": 1.0} and target.costs["Conv"].integer == {"mac": 0.125}
    assert target.costs["Softmax"].integer is None
    assert target.session_settings == {"x86_64": {"session.qdqisint8allowed": "1"}}
    assert target.fit == {"core": "mine"}


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    text = target_text(TARGETS[name])
    again = read_target(board(tmp_path, text), "here")
    assert again == TARGETS[name]
    assert target_text(again) == text


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('name = "board"', "", "'name' is missing"),
        ('"board"', "7", "'name' is missing or is not a line of text"),
        ("mac = 0.5", "mac = ", "the target is not TOML: Invalid value"),
        ("mac = 0.5", "mac = -1", "costs.Conv.float.mac is -1, which is not a cost"),
        ("mac = 0.5", "mac = nan", "costs.Conv.float.mac is nan"),
        ("mac = 0.5", f"mac = 1{'0' * 400}", "which is not a cost"),
        ("mac = 0.5", f"mac = 1{'0' * 5000}", "the target is not TOML"),
        ("mac = 0.5", "mac = " + "[" * 3000, "the target is not TOML"),
        ("mac = 0.5", "mac = true", "costs.Conv.float.mac is True"),
        ("mac = 0.5", "macs = 0.5", "'costs.Conv.float' has an unknown entry 'macs'; there can be node, element"),
        ("mac = 0.5, element = 1 ", "", "costs.Conv.float is nothing"),
        ("integer = { mac = 0.125 }", "int8 = { mac = 0.125 }", "costs.Conv has an unknown entry 'int8'; there can be float, integer"),
        ("integer = { mac = 0.125 }", "", "no operator has an integer form"),
        ("integer = { mac = 0.125 }", "integer = 3", "'integer' is not a table"),
        ("float = { element = 9.0 }", "", "'costs.Softmax.float' is missing"),
        ("int8", "int4", "activations are 'int4', which is neither int8 nor uint8"),
        ("element = 2.5", "element = 1.0", "QuantizeLinear no less"),
        ("[dequantize]\nelement = 1.25", "[dequantize]\nelement = 0", "DequantizeLinear must cost something"),
        ("[dequantize]\nelement = 1.25", "", "'dequantize' is missing"),
        ("[fit]", "[fitted]", "the target has an unknown entry 'fitted'"),
        ('= "1"', "= 1", "a setting in session_settings.x86_64 is not text"),
        ("\n[session", "depthwise_weight_bits = 9\n[session", "depthwise_weight_bits is 9 instead of 2 to 8"),
        ("\n[session", "largest_pair = 12\n[session", "largest_pair is 12, too small"),
        ("\n[session", "architectures = 3\n[session", "'architectures' is not a list of texts"),
        ("\n[session", "call = -3\n[session", "call is -3, which is not a cost"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, what: str) -> None:
    assert old in BOARD
    with pytest.raises(UsageError, match=what) as caught:
        read_target(board(tmp_path, BOARD.replace(old, new, 1)), "--target board.toml")
    message = str(caught.value).splitlines()
    assert len(message) == 3 and message[1] == "  at: --target board.toml" and "docs/targets.md" in message[2]


SECOND = (
    BOARD
    + """
[second]
unit = "cycles"
call = 5
[second.quantize]
element = 1.5
[second.dequantize]
element = 0.5
[second.other]
element = 3.0
[second.costs.Conv]
float = { mac = 0.25 }
integer = { mac = 0.0625 }
[second.fit]
core = "simulated"
"""
)


def test_a_second_unit_is_the_same_target_with_other_costs(tmp_path: Path) -> None:
    target = read_target(board(tmp_path, SECOND), "here")
    assert target.second is not None and replace(target, second=None) == read_target(board(tmp_path), "here")
    assert (target.second.unit, target.second.call, target.second.quantize(10), target.second.dequantize(10)) == ("cycles", 5.0, 15.0, 5.0)
    assert target.second.costs == {"Conv": Cost({"mac": 0.25}, {"mac": 0.0625})} and target.second.other == {"element": 3.0}
    assert target.second.fit == {"core": "simulated"} and target.second.second is None
    assert (target.second.name, target.second.session_settings) == (target.name, target.session_settings)
    assert read_target(board(tmp_path, target_text(target)), "here") == target


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('"cycles"', '"nanoseconds"', "the second unit is nanoseconds, like the first"),
        ("integer = { mac = 0.0625 }", "", "no operator has an integer form"),
        ("[second.costs.Conv]", "[second.costs.MatMul]", "costs.Conv.integer is missing, which the first unit has"),
        ("call = 5", "margin = 5", "it has an unknown entry 'margin'"),
        ("element = 1.5", "element = 0.25", "QuantizeLinear no less"),
    ],
)
def test_mistakes_of_a_second_unit_are_named(tmp_path: Path, old: str, new: str, what: str) -> None:
    assert SECOND.count(old) == 1
    with pytest.raises(UsageError, match=what) as caught:
        read_target(board(tmp_path, SECOND.replace(old, new)), "--target board.toml")
    assert str(caught.value).splitlines()[1] == "  at: --target board.toml, [second]"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "board.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="the target cannot be read"):
        read_target(path, "here")
