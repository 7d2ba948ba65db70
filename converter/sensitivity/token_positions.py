"""Where the places of a feature map are in every tensor: followed through the graph, so that changes of layout show.

A feature map [N, C, H, W] holds its places in raster order along its last two axes. A tensor that was made from a map
without mixing places still holds them, in some order along some axes; the numbers of the places, broadcast to the
tensor's shape, say which. A product of queries and keys holds two sets of places, one along its rows and one along its
columns. What has been summed over is gone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch

from converter.graph.marks import RESIZE
from converter.graph.operator_sets import CONVOLUTIONS, REARRANGEMENT, VIEWS
from converter.graph.queries import attributes, constant, is_float
from converter.torch_backend import ops as torch_ops

__all__ = ["Places", "is_map", "places_of"]

Tensor = torch.Tensor

Places = tuple[Tensor, ...]
"""Numbers of places, int64, each of a shape that broadcasts to the tensor's; none if it holds no places."""

_ROW = 1 << 32
"""Number of the first place of the second row."""

_BY_SHAPE = VIEWS | {"Expand"}
"""Of those that rearrange, the ones whose result follows from its shape alone."""

_WINDOWS = CONVOLUTIONS | {"AveragePool", "MaxPool", "LpPool", "Resize", "Pad"}
_REDUCING = frozenset(
    ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare", "GlobalAveragePool", "GlobalMaxPool"]
)


def is_map(places: Places, shape: Sequence[int]) -> bool:
    """True for a tensor that holds places as a feature map does."""
    if len(shape) != 4 or len(places) != 1 or places[0].ndim != 4 or places[0].shape[:2] != (1, 1):
        return False
    return torch.equal(places[0].expand(1, 1, shape[2], shape[3]), _raster(shape))


def _raster(shape: Sequence[int]) -> Tensor:
    # rows and columns apart, so that the same places in rows of another length are another arrangement
    return (torch.arange(shape[2])[:, None] * _ROW + torch.arange(shape[3])).reshape(1, 1, shape[2], shape[3])


def places_of(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> dict[str, Places]:
    """The places that each computed float tensor holds.

    Args:
        model: canonical float model.
        shapes: of its tensors, by name, as observed.
    """
    found: dict[str, Places] = {}  # what an operator does to places that is not known here, it does not do
    for value in model.graph.inputs:
        shape = shapes.get(str(value.name), ())
        found[str(value.name)] = (_raster(shape),) if len(shape) == 4 else ()
    for node in model.graph:
        made = _follow(node, found, shapes)
        for value, places in zip(node.outputs, made, strict=False):
            shape = shapes.get(str(value.name), ())
            found[str(value.name)] = tuple(_narrow(_aligned(p, shape)) for p in places if _fits(p, shape))
    return found


def _follow(node: ir.Node, found: Mapping[str, Places], shapes: Mapping[str, Sequence[int]]) -> list[Places]:
    none: list[Places] = [() for _ in node.outputs]
    out = shapes.get(str(node.outputs[0].name), ())
    x = node.inputs[0] if node.inputs else None
    if x is None or not is_float(node.outputs[0]):
        return none
    if RESIZE in node.metadata_props:
        return [(_raster(out),) if len(out) == 4 else ()]
    if node.op_type in REARRANGEMENT:
        return _moved(node, found.get(str(x.name), ()), shapes.get(str(x.name), ()), [shapes.get(str(o.name), ()) for o in node.outputs])
    if node.op_type in _WINDOWS:
        places = found.get(str(x.name), ())
        if _pointwise_window(node) and not is_map(places, shapes.get(str(x.name), ())):
            return [tuple(p for p in places if p.ndim == len(out) and p.shape[1] == 1)]
        return [(_raster(out),) if len(out) == 4 else ()]
    if node.op_type in _REDUCING:
        return [_reduced(found.get(str(x.name), ()), shapes.get(str(x.name), ()), out)]
    if node.op_type in ("MatMul", "Gemm"):
        return [_product(node, found)]
    if node.op_type == "Concat":
        return [_concatenated(node, found, shapes)]
    return [_together(node, found, out), *none[1:]]


def _fits(places: Tensor, shape: Sequence[int]) -> bool:
    """True if places broadcast to a tensor of that shape."""
    aligned = list(places.shape) if places.ndim <= len(shape) else [0]
    return all(size in (1, wanted) for size, wanted in zip(aligned[::-1], list(shape)[::-1], strict=False))


def _aligned(places: Tensor, shape: Sequence[int]) -> Tensor:
    """With as many axes as the shape has."""
    return places.reshape((1,) * (len(shape) - places.ndim) + tuple(places.shape))


def _narrow(places: Tensor) -> Tensor:
    """Without the axes along which nothing changes."""
    for axis, size in enumerate(places.shape):
        if size > 1 and bool((places == places.narrow(axis, 0, 1)).all()):
            places = places.narrow(axis, 0, 1)
    return places


def _moved(node: ir.Node, places: Places, shape: Sequence[int], written: Sequence[Sequence[int]]) -> list[Places]:
    """Places moved as the numbers are.

    Args:
        node: the operator.
        places: of its first input.
        shape: of its first input, as observed.
        written: shapes of its outputs, as observed; they write_assignment what a model with open sizes computes.
    """
    made: list[list[Tensor]] = [[] for _ in node.outputs]
    arrays = [constant(v) for v in node.inputs[1:]]
    computed = any(a is None and v is not None for a, v in zip(arrays, node.inputs[1:], strict=True))
    if computed and node.op_type not in _BY_SHAPE:
        return [() for _ in node.outputs]
    others = [None if a is None else torch.from_numpy(np.array(a)) for a in arrays]
    for place in places:
        if not _fits(place, shape):
            continue
        wide = place.expand(tuple(shape))
        try:
            moved = [_shaped(wide, written[0])] if computed else torch_ops.apply(node.op_type, [wide, *others], attributes(node))
        except torch_ops.UnknownOperatorError:  # an attribute without a rule: nobody knows where the places go
            return [() for _ in node.outputs]
        for target, part in zip(made, moved, strict=True):
            if part is not None:
                target.append(part)
    return [tuple(m for m in moved if m.numel() and not _constant(m)) for moved in made]


def _shaped(places: Tensor, shape: Sequence[int]) -> Tensor | None:
    """In another shape of as many numbers, or expanded to a larger one; None if it is neither."""
    if places.numel() == math.prod(shape):
        return places.reshape(tuple(shape))
    return places.expand(tuple(shape)) if _fits(places, shape) else None


def _constant(places: Tensor) -> bool:
    return bool((places == places.reshape(-1)[0]).all())


def _pointwise_window(node: ir.Node) -> bool:
    """A convolution that sees one place at a time."""
    weight = constant(node.inputs[1]) if node.op_type == "Conv" else None
    attrs = attributes(node)
    plain = not any(attrs.get("pads", [0])) and all(s == 1 for s in attrs.get("strides", [1]))
    return weight is not None and plain and math.prod(weight.shape[2:]) == 1


def _reduced(places: Places, before: Sequence[int], after: Sequence[int]) -> Places:
    """What is left when some axes are summed over; only with as many axes as before."""
    if len(before) != len(after):
        return ()
    gone = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    return tuple(p for p in places if all(p.shape[i] == 1 for i in gone))


def _product(node: ir.Node, found: Mapping[str, Places]) -> Places:
    left, right = (found.get(str(v.name), ()) if v is not None else () for v in node.inputs[:2])
    kept = [p for p in left if p.ndim >= 2 and p.shape[-1] == 1]
    return tuple(kept + [p for p in right if p.ndim >= 2 and p.shape[-2] == 1])


def _concatenated(node: ir.Node, found: Mapping[str, Places], shapes: Mapping[str, Sequence[int]]) -> Places:
    axis = attributes(node)["axis"]
    parts = [(found.get(str(v.name), ()), shapes.get(str(v.name), ())) for v in node.inputs if v is not None]
    if not all(len(p) == 1 for p, _ in parts):
        return ()
    first = parts[0][0][0]
    if all(torch.equal(p[0], first) for p, _ in parts) and first.ndim and first.shape[axis] == 1:
        return (first,)
    if not all(_fits(p[0], shape) for p, shape in parts):
        return ()
    wide = [p[0].expand(tuple(shape)) for p, shape in parts]
    return (torch.cat(wide, axis),)


def _together(node: ir.Node, found: Mapping[str, Places], shape: Sequence[int]) -> Places:
    """Operators that work place by place: all places of all operands."""
    union: list[Tensor] = []
    for value in node.inputs:
        for place in found.get(str(value.name), ()) if value is not None else ():
            aligned = _aligned(place, shape) if place.ndim <= len(shape) else place
            if not any(torch.equal(aligned, other) for other in union):
                union.append(aligned)
    return tuple(union)
