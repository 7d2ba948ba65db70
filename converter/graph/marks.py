"""Marks that rewrites leave on nodes of a model in memory, as entries of their metadata. What the emitter writes has none."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

__all__ = ["AVERAGE", "BORDER", "EDGE", "INSERTED", "NONUNIFORM", "RESIZE", "SOFTMAX_ROWS", "TWIN_SUM", "mark_makers"]

AVERAGE = "bridgequant.average"
"""The convolution takes averages. What its weights are is known, and they are as many for every channel: few bits would save nothing."""

EDGE = "bridgequant.edge"
"""The Slice takes what lies at the edges of a map, to make a border of it."""

BORDER = "bridgequant.border"
"""The Concat puts means of numbers of its second input around it, which that one's grid holds too."""

RESIZE = "bridgequant.resize"
"""The places that the node mixes are a map's before and after, which its shapes do not show."""

INSERTED = "bridgequant.inserted"
"""The multiplication was inserted, so that its operand can have a grid per channel."""

NONUNIFORM = "bridgequant.nonuniform"
"""The node is part of a grid that is not uniform, of the kind that is the entry's text."""

SOFTMAX_ROWS = "bridgequant.softmax-rows"
"""The node is the maximum, the difference or the exponential of a softmax's rows that are divided later."""

TWIN_SUM = "twin-sum"
"""Text of :data:`NONUNIFORM` for an addition of two halves, neither of which has been rounded."""


def mark_makers(values: Iterable[ir.Value], key: str, text: str = "") -> None:
    """Mark the nodes that compute these tensors."""
    for value in values:
        maker = value.producer()
        assert maker is not None
        maker.metadata_props[key] = text
