"""Where the places of a feature map are in every tensor: followed through the graph, so that changes of layout show.

A feature map [N, C, H, W] holds its places in raster order along its last two axes. A tensor that was made from a map
without mixing places still holds them, in some order along some axes; the numbers of the places, broadcast to the
tensor's shape, say which. A product of queries and keys holds two sets of places, one along its rows and one along its
columns. Where places are summed over, those that went into one number are one place from then on: merged patches are places
of a smaller map, and what has been summed over altogether is gone. Numbers that stand beside places and come from none, such
as a class token or padding, are marked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch

from converter.graph.marks import BORDER, EDGE, RESIZE
from converter.graph.operator_sets import CONVOLUTIONS, REARRANGEMENT, VIEWS
from converter.graph.queries import attributes, constant, is_float
from converter.sensitivity.known_values import values_from_shapes
from converter.torch_backend import ops as torch_ops

__all__ = ["Places", "is_map", "places_of"]

Tensor = torch.Tensor
Shape = Sequence[int]

Places = tuple[Tensor, ...]
"""Numbers of places, int64, with as many axes as the tensor, of shapes that broadcast to the tensor's; none if it holds no places."""

_ROW = 1 << 32
"""Number of the first place of the second row."""

_NO_PLACE = -1
"""Instead of a number, where what stands there comes from no place."""

_WINDOWS = CONVOLUTIONS | {"AveragePool", "MaxPool", "LpPool", "Resize"}
_GLOBAL = frozenset(["GlobalAveragePool", "GlobalMaxPool"])
_MAP_TO_MAP = frozenset(["DepthToSpace", "Pad", "SpaceToDepth"])
"""Of those that move numbers, the ones that make another map of a map."""

_MOVING = REARRANGEMENT - {"Expand"} | {"Pad"}


def is_map(places: Places, shape: Shape) -> bool:
    """True for a tensor that holds places as a feature map does; if some rows or columns were left out, those that it has."""
    if len(shape) != 4 or len(places) != 1 or tuple(places[0].shape) != (1, 1, *shape[2:]):
        return False
    rows, columns = places[0][..., :1] // _ROW, places[0][:, :, :1] % _ROW
    increasing = bool((rows.diff(dim=2) > 0).all()) and bool((columns.diff(dim=3) > 0).all())
    return increasing and torch.equal(places[0], rows * _ROW + columns)


def _raster(shape: Shape) -> Tensor:
    # rows and columns apart, so that the same places in rows of another length are another arrangement
    return (torch.arange(shape[2])[:, None] * _ROW + torch.arange(shape[3])).reshape(1, 1, shape[2], shape[3])


def places_of(model: ir.Model, shapes: Mapping[str, Shape]) -> dict[str, Places]:
    """The places that each computed float tensor holds; none for a single place that is not a map.

    Args:
        model: canonical float model.
        shapes: of its tensors, by name, as observed.
    """
    found: dict[str, Places] = {}  # what an operator does to places that is not known here, it does not do
    known = values_from_shapes(model, shapes)
    for value in model.graph.inputs:
        shape = shapes.get(str(value.name), ())
        found[str(value.name)] = (_raster(shape),) if len(shape) == 4 else ()
    for node in model.graph:
        held = [found.get(str(v.name), ()) if v is not None else () for v in node.inputs]
        before = [_shape(v, shapes) for v in node.inputs]
        after = [_shape(v, shapes) for v in node.outputs]
        made = _follow(node, held, before, after, known) if held and is_float(node.outputs[0]) else []
        for value, shape, places in zip(node.outputs, after, [*made, *([()] * len(after))], strict=False):
            found[str(value.name)] = _distinct(_narrow(_aligned(p, shape)) for p in places if _fits(p, shape))
    alone = {name for name, held in found.items() if all(p.numel() == 1 for p in held) and not is_map(held, shapes.get(name, ()))}
    return {name: () if name in alone else held for name, held in found.items()}


def _shape(value: ir.Value | None, shapes: Mapping[str, Shape]) -> Shape:
    """As observed, or of a constant; of anything else ()."""
    if value is None or str(value.name) in shapes:
        return shapes[str(value.name)] if value is not None else ()
    array = constant(value)
    return () if array is None else array.shape


def _follow(
    node: ir.Node, held: Sequence[Places], before: Sequence[Shape], after: Sequence[Shape], known: Mapping[str, Tensor]
) -> Sequence[Iterable[Tensor]]:
    """What each output holds.

    Args:
        node: the operator.
        held: places of its inputs.
        before: shapes of its inputs.
        after: shapes of its outputs.
        known: values that follow from shapes.
    """
    if EDGE in node.metadata_props:
        return []  # what becomes of it is a part of the map again
    if BORDER in node.metadata_props and is_map(held[1], before[1]):
        return [[_raster(after[0])]]
    if RESIZE in node.metadata_props or node.op_type in _WINDOWS:
        return [_seen_through_windows(node, held[0], before[0], after[0])]
    if node.op_type in _MAP_TO_MAP and is_map(held[0], before[0]):
        return [[_raster(after[0])]]
    if node.op_type in VIEWS:
        return [[_reshaped(p, before[0], after[0]) for p in held[0] if 0 < math.prod(before[0]) == math.prod(after[0])]]
    if node.op_type in _MOVING:
        return _moved(node, held[0], before[0], known)
    if node.op_type in _GLOBAL or node.op_type.startswith("Reduce"):
        return [_reduced(node, held[0], before[0], known)]
    if node.op_type in ("MatMul", "Gemm"):
        return [[_merged(p, [axis]) for axis, places in zip((-1, -2), held, strict=False) for p in places if p.ndim >= 2]]
    if node.op_type == "Concat":
        axis = attributes(node)["axis"] % len(after[0])
        maps = [is_map(places, shape) for places, shape in zip(held, before, strict=True) if places]
        return [[_raster(after[0])] if axis == 1 and maps and all(maps) else _concatenated(axis, held, before)]
    return [[_aligned(p, after[0]) for places in held for p in places]]  # place by place: all places of all operands


def _fits(places: Tensor, shape: Shape) -> bool:
    """True if places broadcast to a tensor of that shape."""
    aligned = list(places.shape) if places.ndim <= len(shape) else [0]
    return all(size in (1, wanted) for size, wanted in zip(aligned[::-1], list(shape)[::-1], strict=False))


def _aligned(places: Tensor, shape: Shape) -> Tensor:
    """With as many axes as the shape has."""
    return places.reshape((1,) * (len(shape) - places.ndim) + tuple(places.shape))


def _narrow(places: Tensor) -> Tensor:
    """Without the axes along which nothing changes."""
    for axis, size in enumerate(places.shape):
        if size > 1 and bool((places == places.narrow(axis, 0, 1)).all()):
            places = places.narrow(axis, 0, 1)
    return places


def _widened(places: Tensor, shape: Shape, axes: Iterable[int]) -> Tensor:
    """As long as the tensor along some axes."""
    wide = {axis % places.ndim for axis in axes}
    return places.expand([shape[i] if i in wide else size for i, size in enumerate(places.shape)])


def _distinct(places: Iterable[Tensor]) -> Places:
    """Without those that follow from others, as the number of a window does from the places inside of it."""
    kept: list[Tensor] = []
    for place in places:
        if bool((place != _NO_PLACE).any()) and not any(_follows(place, other) for other in kept):
            kept = [*(other for other in kept if not _follows(other, place)), place]
    return tuple(kept)


def _follows(places: Tensor, others: Tensor) -> bool:
    """True if equal numbers among the others have equal numbers here; nothing is asked where the others have no place."""
    if any(a > 1 and b == 1 for a, b in zip(places.shape, others.shape, strict=True)):
        return False
    order = others.reshape(-1).argsort()
    here, there = places.expand(others.shape).reshape(-1)[order], others.reshape(-1)[order]
    return not bool(((there[1:] == there[:-1]) & (there[1:] != _NO_PLACE) & (here[1:] != here[:-1])).any())


def _merged(places: Tensor, axes: Sequence[int]) -> Tensor:
    """Summed over these axes, which are left with a length of one: a number stands for the first of the places that went into it."""
    if all(places.shape[axis] == 1 for axis in axes):
        return places
    last = torch.iinfo(places.dtype).max
    first = places.masked_fill(places == _NO_PLACE, last).amin(tuple(axes), keepdim=True)
    one = bool((first == first.reshape(-1)[0]).all())
    return torch.full_like(first, _NO_PLACE) if one else first.masked_fill(first == last, _NO_PLACE)


def _seen_through_windows(node: ir.Node, places: Places, before: Shape, after: Shape) -> list[Tensor]:
    """A map makes a map; what is no map keeps its arrangement, unless it looks like one image."""
    image = len(after) == 4 and not any(p.shape[0] > 1 for p in places)
    if RESIZE in node.metadata_props or is_map(places, before) or (image and not _pointwise_window(node)):
        return [_raster(after)] if len(after) == 4 else []
    return [_resampled(_merged(p, [1]), after) for p in places if len(before) == len(after) > 2]


def _resampled(places: Tensor, after: Shape) -> Tensor:
    """Of every window the place in its middle, roughly."""
    for axis, size in enumerate(after[2:], 2):
        if places.shape[axis] not in (1, size):
            places = places.index_select(axis, torch.arange(size) * places.shape[axis] // size)
    return places


def _pointwise_window(node: ir.Node) -> bool:
    """A convolution that sees one place at a time."""
    weight = constant(node.inputs[1]) if node.op_type == "Conv" else None
    attrs = attributes(node)
    plain = not any(attrs.get("pads", [0])) and all(s == 1 for s in attrs.get("strides", [1]))
    return weight is not None and plain and math.prod(weight.shape[2:]) == 1


def _reshaped(places: Tensor, before: Shape, after: Shape) -> Tensor:
    """In another shape of as many numbers; axes are made long only where places change along what they are joined with."""
    wide: list[int] = []
    sizes: list[int] = []
    i = j = 0
    while i < len(before) or j < len(after):
        start, target, left, right = i, j, 1, 1
        while left != right or (i, j) == (start, target):
            if left <= right and i < len(before):
                left, i = left * before[i], i + 1
            else:
                right, j = right * after[j], j + 1
        changes = any(size > 1 for size in places.shape[start:i])
        wide += before[start:i] if changes else [1] * (i - start)
        sizes += after[target:j] if changes else [1] * (j - target)
    return places.expand(wide).reshape(sizes)


def _moved(node: ir.Node, places: Places, before: Shape, known: Mapping[str, Tensor]) -> list[list[Tensor]]:
    """Places moved as the numbers are; nobody knows where they go if that depends on other numbers."""
    arrays = [_array(v, known) for v in node.inputs[1:]]
    if any(a is None and v is not None for a, v in zip(arrays, node.inputs[1:], strict=True)):
        return []
    if node.op_type == "Pad":
        arrays = [arrays[0], torch.tensor(_NO_PLACE), *arrays[2:]]
    axes = _touched(node, arrays, len(before))
    try:
        moved = [torch_ops.apply(node.op_type, [_widened(p, before, axes), *arrays], attributes(node)) for p in places]
    except torch_ops.UnknownOperatorError:  # an attribute without a rule
        return []
    return [[part[i] for part in moved] for i in range(len(node.outputs))]


def _touched(node: ir.Node, arrays: Sequence[Tensor | None], rank: int) -> Iterable[int]:
    """Axes along which numbers are chosen."""
    if node.op_type in ("Identity", "Transpose"):
        return []
    if node.op_type in ("Gather", "Split"):
        return [attributes(node).get("axis", 0)]
    if node.op_type == "Slice" and len(arrays) > 2 and arrays[2] is not None:
        return [int(axis) for axis in arrays[2]]
    return range(rank)


def _array(value: ir.Value | None, known: Mapping[str, Tensor]) -> Tensor | None:
    array = constant(value)
    return (
        known.get(str(value.name)) if array is None and value is not None else None if array is None else torch.from_numpy(np.array(array))
    )


def _reduced(node: ir.Node, places: Places, before: Shape, known: Mapping[str, Tensor]) -> list[Tensor]:
    if node.op_type in _GLOBAL:
        return [_merged(p, range(2, len(before))) for p in places]
    axes = _array(node.inputs[1], known) if len(node.inputs) > 1 else None
    if axes is None:
        return []
    gone = sorted(int(axis) % len(before) for axis in axes)
    merged = [_merged(p, gone) for p in places]
    if attributes(node).get("keepdims", 1):
        return merged
    return [p.reshape([size for i, size in enumerate(p.shape) if i not in gone]) for p in merged]


def _concatenated(axis: int, held: Sequence[Places], before: Sequence[Shape]) -> list[Tensor]:
    """Joined along the axis, set by set; what holds no places is joined as such, unless it is joined along channels."""
    if len({len(places) for places in held if places}) != 1:
        return []
    joined = []
    for parts in zip(*(places or [None] * max(map(len, held)) for places in held), strict=True):
        real = [p for p in parts if p is not None]
        if all(p.shape == real[0].shape and torch.equal(p, real[0]) for p in real) and real[0].shape[axis] == 1:
            joined.append(real[0])
            continue
        common = [max(sizes) for sizes in zip(*(p.shape for p in real), strict=True)]
        filled = [torch.full((1,) * len(common), _NO_PLACE) if p is None else p for p in parts]
        wide = [(common[:axis], shape[axis], common[axis + 1 :]) for shape in before]
        joined.append(torch.cat([p.expand([*a, n, *b]) for p, (a, n, b) in zip(filled, wide, strict=True)], axis))
    return joined
