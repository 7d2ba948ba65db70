"""A border of averages: with it around a map, a mean over what lies inside is a plain convolution.

A window of three that reaches one place beyond the map counts two places inside. With the mean of these two in the missing place, its
mean over three is their mean over two. One row above and below, and then one column on each side, do that for windows of 3 x 3.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.graph.builder import GraphBuilder
from converter.graph.marks import BORDER, mark_makers
from converter.targets import Target
from converter.targets.costs import COPY_KIND, cheaper_form

__all__ = ["SMALLEST_SIDE", "average_border", "border_cost"]

SMALLEST_SIDE = 4
"""From which on the two places at one end are not those at the other."""

_SIDES = (2, 3)
"""Axes of a map's rows and columns."""


def average_border(builder: GraphBuilder, x: ir.Value, name: str, before: ir.Node) -> ir.Value:
    """Append a border of one place to each side of a map.

    Args:
        x: [N, C, H, W], float32, of known H and W of at least :data:`SMALLEST_SIDE`.
        name: what the new tensors are called after.
        before: the node in front of which the new ones stand.

    Returns:
        [N, C, H + 2, W + 2].
    """
    for axis in _SIDES:
        x = _bordered(builder, x, axis, f"{name}_{'rows' if axis == _SIDES[0] else 'columns'}", before)
    return x


def border_cost(channels: int, height: int, width: int, target: Target) -> float:
    """What that costs among integer operators, in the target's unit, for a batch of one."""
    total = 0.0
    for length, other in ((height, width), (width, height + 2)):
        thin, whole = 2.0 * channels * other, channels * (length + 2.0) * other
        slices = 2 * cheaper_form("Slice", {"node": 1.0, "element": thin, "input": thin}, target)
        total += slices + cheaper_form("Add", {"node": 1.0, "element": thin, "input": 2 * thin}, target)
        total += cheaper_form("Split", {"node": 1.0, "element": thin, "input": thin}, target)
        total += cheaper_form(COPY_KIND, {"node": 1.0, "element": whole, "input": whole}, target)
    return total


def _bordered(builder: GraphBuilder, x: ir.Value, axis: int, name: str, before: ir.Node) -> ir.Value:
    """The same along one axis. What enters is larger than all else that the Concat reads, which the mark says."""
    shape = list(x.shape or ())
    size = shape[axis]
    assert isinstance(size, int)

    def sized(places: int) -> ir.Shape:
        return ir.Shape([*shape[:axis], places, *shape[axis + 1 :]])

    def ends(first: int, what: str) -> ir.Value:
        """A place at the beginning and its counterpart at the end."""
        last = size - 1 - first
        bounds = [builder.initializer(f"{name}_{what}_{k}", np.array([v], np.int64)) for k, v in _bounds(first, last, axis).items()]
        return builder.add("Slice", [x, *bounds], name=f"{name}_{what}", like=x, shape=sized(2), before=before)

    total = builder.add("Add", [ends(0, "outer"), ends(1, "inner")], name=f"{name}_Add", like=x, shape=sized(2), before=before)
    half = builder.initializer(f"{name}_half", np.array(0.5, np.float32))
    mean = builder.add("Mul", [total, half], name=f"{name}_mean", like=x, shape=sized(2), before=before)
    split = ir.node("Split", [mean], {"axis": axis, "num_outputs": 2}, num_outputs=2, name=builder.unique(f"{name}_Split"))
    for part, value in zip(("first", "last"), split.outputs, strict=True):
        value.name, value.type, value.shape = builder.unique(f"{name}_{part}"), x.type, sized(1)
    builder.graph.insert_before(before, [split])
    inputs = [split.outputs[0], x, split.outputs[1]]
    result = builder.add("Concat", inputs, {"axis": axis}, name=f"{name}_Concat", like=x, shape=sized(size + 2), before=before)
    mark_makers([result], BORDER)
    return result


def _bounds(first: int, last: int, axis: int) -> dict[str, int]:
    """Operands of the Slice that picks two places."""
    return {"start": first, "end": last + 1, "axis": axis, "step": last - first}
