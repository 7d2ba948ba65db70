"""Which axis of an output holds rows that the network selects or sorts by their values, as a detector does its boxes.

TopK, NonMaxSuppression, NonZero, Compress and Unique decide by values how many rows there are and in which order.
Which of two nearly equal scores comes first says nothing about accuracy, so such rows have no place of their own. The
axis on which they lie is followed from the operator that made it to the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import onnx_ir as ir

from converter.graph.queries import attributes, constant

__all__ = ["SELECTING", "row_axes"]

Axes = frozenset[int]
Shapes = Mapping[str, tuple[int, ...]]

_NONE: Axes = frozenset()

_EMPTY = 1_000_003
"""Stands for a dimension of no rows where dimensions are multiplied: a prime that no other has as a factor."""

_SAME_PLACE = frozenset(["Concat", "Pad", "Slice", "Split"])
"""Operators that keep an axis where it is, though perhaps not as long."""


class _Read(NamedTuple):
    """An operator's attributes, the axes of selected rows of each input, the inputs' shapes, and the output's."""

    attributes: Mapping[str, Any]
    axes: Sequence[Axes]
    before: Sequence[tuple[int, ...]]
    after: tuple[int, ...]


def row_axes(model: ir.Model, shapes: Shapes) -> dict[str, int]:
    """The axis of selected rows of each output that has one; of several, the first.

    Args:
        shapes: of every tensor in one run.
    """
    found: dict[ir.Value, Axes] = {}
    for node in model.graph:
        axes = [found.get(v, _NONE) if v is not None else _NONE for v in node.inputs]
        if not any(axes) and node.op_type not in SELECTING:
            continue
        before = [_shape(v, shapes) for v in node.inputs]
        for value in node.outputs:
            if str(value.name) in shapes:
                after = shapes[str(value.name)]
                made = _axes(node, _Read(attributes(node), axes, before, after))
                found[value] = frozenset(axis for axis in made if 0 <= axis < len(after))
    return {str(v.name): min(found[v]) for v in model.graph.outputs if found.get(v)}


def _shape(value: ir.Value | None, shapes: Shapes) -> tuple[int, ...]:
    if value is None:
        return ()
    array = constant(value)
    return shapes.get(str(value.name), ()) if array is None else array.shape


def _axes(node: ir.Node, read: _Read) -> Axes:
    """Axes of selected rows of an output."""
    if node.op_type in SELECTING:
        kept = read.axes[0] if node.op_type == "TopK" else _NONE
        return kept | {SELECTING[node.op_type](read.attributes, len(read.before[0]))}
    if node.op_type in _RULES:
        return _RULES[node.op_type](read)
    if node.op_type.startswith(("Reduce", "Arg")):
        return _reduced(read, _reduced_axes(node, len(read.before[0])))
    anywhere = node.op_type in _SAME_PLACE
    return _NONE.union(*(_aligned(read, i, anywhere=anywhere) for i in range(len(read.axes))))


def _aligned(read: _Read, index: int, *, anywhere: bool = False) -> Axes:
    """As broadcasting aligns shapes, from the last axis on; only where the size is the same, unless it does not matter."""
    before, after = read.before[index], read.after
    shift = len(after) - len(before)
    fits = (a for a in read.axes[index] if a + shift >= 0 and (anywhere or before[a] == after[a + shift]))
    return frozenset(a + shift for a in fits)


def _from_front(axis: int, rank: int) -> int:
    return axis + rank if axis < 0 else axis


def _reshaped(read: _Read) -> Axes:
    """An axis goes on where one of the same size has as many elements in front of it."""
    old, new = ([n or _EMPTY for n in shape] for shape in (read.before[0], read.after))
    places = {(math.prod(new[:i]), n): i for i, n in reversed(list(enumerate(new)))}
    keys = ((math.prod(old[:a]), old[a]) for a in read.axes[0])
    return frozenset(places[key] for key in keys if key in places)


def _transposed(read: _Read) -> Axes:
    order = read.attributes.get("perm") or list(reversed(range(len(read.before[0]))))
    return frozenset(new for new, old in enumerate(order) if old in read.axes[0])


def _reduced_axes(node: ir.Node, rank: int) -> set[int]:
    """The axes that are summed up, or over which the largest is sought."""
    a = attributes(node)
    if node.op_type.startswith("Arg"):
        return {_from_front(a.get("axis", 0), rank)}
    listed = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = a.get("axes", []) if listed is None else listed.tolist()
    everything = range(0 if a.get("noop_with_empty_axes", 0) else rank)
    return {_from_front(axis, rank) for axis in (axes or everything)}


def _reduced(read: _Read, gone: set[int]) -> Axes:
    left = [axis for axis in read.axes[0] if axis not in gone]
    return frozenset(left if read.attributes.get("keepdims", 1) else (axis - sum(g < axis for g in gone) for axis in left))


def _gathered(read: _Read) -> Axes:
    axis, rank = _from_front(read.attributes.get("axis", 0), len(read.before[0])), len(read.before[1])
    data = {a if a < axis else a + rank - 1 for a in read.axes[0] if a != axis or rank == 1}
    return frozenset(data | {axis + a for a in read.axes[1]})


def _gathered_by_tuple(read: _Read) -> Axes:
    """GatherND: the last axis of the indices names places, what lies behind these places comes along."""
    picked = len(read.before[1]) - 1
    shift = picked - read.attributes.get("batch_dims", 0) - read.before[1][-1]
    return frozenset({a + shift for a in read.axes[0] if a + shift >= picked} | {a for a in read.axes[1] if a < picked})


def _multiplied(read: _Read) -> Axes:
    ranks = [len(shape) for shape in read.before]
    if min(ranks) < 2:
        return _NONE
    rows = {axis + len(read.after) - ranks[0] for axis in read.axes[0] if axis != ranks[0] - 1}
    return frozenset(rows | {axis + len(read.after) - ranks[1] for axis in read.axes[1] if axis != ranks[1] - 2})


def _general_product(read: _Read) -> Axes:
    left, right = (bool(read.attributes.get(name, 0)) for name in ("transA", "transB"))
    return frozenset(axis for axis, own in enumerate((int(left), int(not right))) if own in read.axes[axis])


def _summed(read: _Read) -> Axes:
    """Einsum: an axis goes where its letter goes."""
    terms, _, result = read.attributes["equation"].replace(" ", "").partition("->")
    if "." in terms or not result:
        return _NONE
    letters = {term[axis] for term, axes in zip(terms.split(","), read.axes, strict=True) for axis in axes}
    return frozenset(i for i, letter in enumerate(result) if letter in letters)


def _sampled(read: _Read) -> Axes:
    """GridSample: the grid's places are those of the output, behind the channels."""
    return frozenset({axis + 1 for axis in read.axes[1] if 0 < axis < len(read.before[1]) - 1} | (read.axes[0] & {0}))


def _own_axis(default: int) -> Callable[[Mapping[str, Any], int], int]:
    return lambda a, rank: _from_front(a.get("axis", default), rank)


SELECTING: Mapping[str, Callable[[Mapping[str, Any], int], int]] = {
    "Compress": _own_axis(0),
    "NonMaxSuppression": lambda a, rank: 0,
    "NonZero": lambda a, rank: 1,
    "TopK": _own_axis(-1),
    "Unique": _own_axis(0),
}
"""Operators that decide by values how many rows there are or in which order; the axis of these rows, by attributes and rank."""

_RULES: Mapping[str, Callable[[_Read], Axes]] = {
    "Einsum": _summed,
    "Flatten": _reshaped,
    "Gather": _gathered,
    "GatherElements": lambda read: read.axes[1] | _aligned(read, 0),
    "GatherND": _gathered_by_tuple,
    "Gemm": _general_product,
    "GridSample": _sampled,
    "MatMul": _multiplied,
    "Reshape": _reshaped,
    "RoiAlign": lambda read: read.axes[1] & {0},  # a row for each region
    # what is written to places that indices name has a place again
    "ScatterElements": lambda read: read.axes[0],
    "ScatterND": lambda read: read.axes[0],
    "Shape": lambda read: _NONE,
    "Size": lambda read: _NONE,
    "Squeeze": _reshaped,
    "Transpose": _transposed,
    "Unsqueeze": _reshaped,
}
