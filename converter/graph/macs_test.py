"""Multiply-accumulates by hand, of one operator ``it`` each."""

from __future__ import annotations

import pytest

from converter.graph.macs import macs_of
from converter.testing.multiplying import MULTIPLYING
from converter.testing.sketch import shapes_of


@pytest.mark.parametrize("case", MULTIPLYING)
def test_multiply_accumulates_by_hand(case: str) -> None:
    model, macs = MULTIPLYING[case]()
    (node,) = model.graph
    assert macs_of(node, shapes_of(model)) == macs


@pytest.mark.parametrize("case", MULTIPLYING)
def test_without_shapes_nothing_is_counted(case: str) -> None:
    (node,) = MULTIPLYING[case]()[0].graph
    assert macs_of(node, {}) == 0
