from __future__ import annotations

import pytest

from converter.errors import UsageError
from converter.placement import Placement, parse_placement, penalties


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("latency", Placement()),
        ("all", Placement(everything=True)),
        ("balanced:0.5", Placement(price=0.5)),
        ("balanced:1e3", Placement(price=1000.0)),
    ],
)
def test_what_can_be_said(text: str, wanted: Placement) -> None:
    assert parse_placement(text) == wanted


@pytest.mark.parametrize("text", ["", "fast", "balanced", "balanced:", "balanced:-1", "balanced:nan", "balanced:inf", "all:3", "latency:1"])
def test_what_cannot(text: str) -> None:
    with pytest.raises(UsageError, match="is not a placement"):
        parse_placement(text)


def test_penalties_by_hand() -> None:
    """A price of 2 makes all the error worth twice the float model; errors in any unit give the same."""
    errors = {"a": 1.0, "b": 3.0, "c": 0.0}
    assert penalties(Placement(price=2.0), errors, 100.0) == {"a": 50.0, "b": 150.0, "c": 0.0}
    assert penalties(Placement(price=2.0), {name: 8 * error for name, error in errors.items()}, 100.0) == {"a": 50.0, "b": 150.0, "c": 0.0}
    assert penalties(Placement(price=0.0), errors, 100.0) == penalties(Placement(price=2.0), {}, 100.0) == {}
    assert penalties(Placement(price=2.0), {"a": 0.0}, 100.0) == {}
