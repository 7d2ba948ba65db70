"""What a comparison says in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from converter.compare.records import Comparison, OutputFigures, Side, falling
from converter.report_page.testing.diagnoses import made_up

PLAIN = made_up(8)
OLD = Side("old.onnx", "model", 4000, 100.0, 0.8, (OutputFigures("logits", 30.0),), PLAIN)
NEW = Side("new.onnx", "model", 2000, 60.0, 0.9, (OutputFigures("logits", 28.0),), PLAIN)


def between(one: Side, other: Side) -> Comparison:
    return Comparison(one, other, "float.onnx", "32 images", 8, "arm64", "instructions")


def test_what_is_better_is_gained_and_what_is_worse_is_lost() -> None:
    found = between(OLD, NEW)
    assert found.gained == (
        "The size of the file is 50% of that of old.onnx.",
        "The predicted cost is 60% of that of old.onnx.",
        "90.0% of the multiply-accumulates run in integer, in old.onnx 80.0%.",
    )
    assert found.lost == ("Output 'logits' has 28.0 dB SQNR against float, in old.onnx 30.0 dB.",)
    assert between(NEW, OLD).gained == ("Output 'logits' has 30.0 dB SQNR against float, in new.onnx 28.0 dB.",)


def test_nothing_changes_between_equals() -> None:
    found = between(OLD, OLD)
    assert found.gained == found.lost == ("Nothing that was measured.",)
    assert found.next == "No tensor is worse by a decibel or more: let speed and size decide."


def test_sizes_that_hardly_differ_are_not_told() -> None:
    assert between(replace(OLD, bytes=4001), OLD).gained == between(OLD, replace(OLD, bytes=4001)).lost == ("Nothing that was measured.",)


def test_a_tensor_that_one_side_alone_equalized_is_not_compared() -> None:
    """With another factor in each channel, its ratio is that of other numbers."""
    fallen = tuple(replace(t, accumulated_db=1.0, equalization="applied") for t in PLAIN.tensors[:1])
    found = between(OLD, replace(NEW, diagnosis=replace(PLAIN, tensors=(*fallen, *PLAIN.tensors[1:]))))
    assert falling(found) == []
    both = replace(OLD, diagnosis=replace(PLAIN, tensors=(replace(fallen[0], accumulated_db=5.0), *PLAIN.tensors[1:])))
    assert falling(between(both, found.second)) == [(PLAIN.tensors[0].name, 4.0)]


def test_against_float() -> None:
    exact = Side("float.onnx", "float", 8000, 200.0, 0.0, (OutputFigures("logits", 200.0),), None)
    assert between(exact, NEW).lost == ("Output 'logits' has 28.0 dB SQNR against float, in float.onnx it is exact.",)
    assert "labelled data" in between(exact, NEW).next


def test_the_tensor_that_falls_most_is_named() -> None:
    worse = [
        replace(t, accumulated_db=(t.accumulated_db or 0.0) - fall)
        for t, fall in zip(PLAIN.tensors, (0, 1, 0, 7, 0, -9, 3, 0), strict=True)
    ]
    found = between(OLD, replace(NEW, diagnosis=replace(PLAIN, tensors=tuple(worse))))
    assert [name for name, _ in falling(found)] == [PLAIN.tensors[i].name for i in (3, 6, 1)]
    assert [fall for _, fall in falling(found)] == pytest.approx([7.0, 3.0, 1.0])
    assert found.next == f"Look at '{PLAIN.tensors[3].name}' first: its accumulated SQNR falls by 7.0 dB, the most of all tensors."
