"""Pad, Resize and CenterCropPad that name axes are written for all axes.

Since opset 18, Pad and Resize may list the axes that their pads, sizes or scales are for. When the runtime puts channels
last around integer convolutions, it permutes these lists as if they were complete, and the model then fails or pads the
wrong axis. Cases:

1. ``Pad``: the other axes get pads of zero.
2. ``Resize``: the other axes get a scale of one or the size that they have.
3. ``Resize`` that keeps the aspect ratio: one factor for the axes, which a scale says.
4. ``CenterCropPad``, which the runtime takes apart into Pad and Slice with axes: a ``Slice`` and a ``Pad``.
5. What no list can say, sizes that keep the aspect ratio and are rounded up, and cubic interpolation, which the runtime
   permutes although it has no kernel for that: the operator stands between two ``Reshape``, which make each channel a
   picture of its own and which no permutation passes.

Sizes that keep the aspect ratio of axes counted from the end are left alone: the runtime does not heed the policy then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.graph.builder import GraphBuilder, rewrite_nodes
from converter.graph.marks import RESIZE, mark_makers
from converter.graph.queries import attributes, constant

__all__ = ["complete_pads", "complete_sizes", "crop_and_pad", "shield_resizes"]

Part = int | float | tuple[ir.Value, int]
"""One number of a list: known, or an element of a computed list."""


def complete_pads(builder: GraphBuilder, node: ir.Node) -> bool:
    """Case 1; the node is a Pad."""
    axes = _axes(node.inputs[0], constant(_input(node, 3)))
    pads = node.inputs[1]
    if axes is None or pads is None:
        return False
    rank, given = _rank(node.inputs[0]), _parts(pads, 2 * len(axes))
    parts: list[Part] = [0] * (2 * rank)
    for place, axis in enumerate(axes):
        parts[axis], parts[rank + axis] = given[place], given[len(axes) + place]
    node.replace_input_with(1, _list(builder, node, parts, np.dtype(np.int64), f"{node.outputs[0].name}_pads"))
    node.resize_inputs(3)
    return True


def complete_sizes(builder: GraphBuilder, node: ir.Node) -> bool:
    """Cases 2 and 3; the node is a Resize."""
    x, attrs = node.inputs[0], attributes(node)
    axes = _axes(x, attrs.get("axes"))
    roi, scales, sizes = (_input(node, i) for i in (1, 2, 3))
    crops = attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    if axes is None or x is None or (crops and constant(roi) is None):
        return False
    if not _is_given(sizes):
        _complete(builder, node, 2, scales, axes, [1.0] * _rank(x), np.dtype(np.float32))
    elif not _keeps_ratio(attrs) or sorted(attrs["axes"]) == list(range(_rank(x))):
        _complete(builder, node, 3, sizes, axes, _sizes_of(builder, node, x), np.dtype(np.int64))
    elif min(attrs["axes"]) >= 0 and (factor := _common_factor(x, axes, constant(sizes), attrs["keep_aspect_ratio_policy"])) is not None:
        value = _list(
            builder, node, [factor if i in axes else 1.0 for i in range(_rank(x))], np.dtype(np.float32), f"{node.outputs[0].name}_scales"
        )
        node.resize_inputs(4)
        node.replace_input_with(2, value)
        node.resize_inputs(3)
        node.attributes.pop("keep_aspect_ratio_policy")
    else:
        return False
    if crops and roi is not None:
        _complete_roi(builder, node, roi, axes, _rank(x))
    node.attributes.pop("axes")
    return True


def crop_and_pad(builder: GraphBuilder, node: ir.Node) -> bool:
    """Case 4; the node is a CenterCropPad whose sizes are known."""
    x, wanted = node.inputs[0], constant(node.inputs[1])
    axes = _axes(x, attributes(node).get("axes", range(_rank(x))))
    if axes is None or x is None or x.shape is None or wanted is None:
        return False
    sizes = [size for axis in axes if isinstance(size := x.shape[axis], int)]
    if len(sizes) < len(axes):
        return False
    rank, name, output = len(x.shape), str(node.outputs[0].name), node.outputs[0]
    starts, ends, pads, inside = [], [], [0] * (2 * rank), list(x.shape)
    for axis, size, target in zip(axes, sizes, (int(t) for t in wanted), strict=True):
        start = max(0, size - target) // 2
        starts.append(start)
        ends.append(start + min(size, target))
        pads[axis] = max(0, target - size) // 2
        pads[rank + axis] = max(0, target - size) - pads[axis]
        inside[axis] = min(size, target)
    lists = (("starts", starts), ("ends", ends), ("axes", axes))
    limits = [_list(builder, node, part, np.dtype(np.int64), f"{name}_{what}") for what, part in lists]
    cropped = builder.add("Slice", [x, *limits], name=f"{name}_Slice", like=output, shape=ir.Shape(inside), before=node)
    amounts = _list(builder, node, pads, np.dtype(np.int64), f"{name}_pads")
    builder.replace(output, builder.add("Pad", [cropped, amounts], name=f"{name}_Pad", like=output, before=node), [node])
    return True


def shield_resizes(model: ir.Model) -> list[str]:
    """Case 5; returns the names of the tensors concerned."""
    return rewrite_nodes(model, {"Resize": _shield})


def _needs_shield(node: ir.Node) -> bool:
    """True for maps of which only height and width change, unless a Reshape is in front already."""
    x, attrs, scales = node.inputs[0], attributes(node), constant(_input(node, 2))
    maker = x.producer() if x is not None else None
    if x is None or _rank(x) != 4 or (maker is not None and maker.op_type == "Reshape"):
        return False
    if attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return False
    if "axes" in attrs:
        return sorted(attrs["axes"]) == [2, 3] and (_keeps_ratio(attrs) or attrs.get("mode") == "cubic")
    if attrs.get("mode") != "cubic" or _keeps_ratio(attrs):
        return False
    return _is_given(_input(node, 3)) or (scales is not None and bool((scales[:2] == 1).all()))


def _shield(builder: GraphBuilder, node: ir.Node) -> bool:
    x, output, attrs, sizes = node.inputs[0], node.outputs[0], attributes(node), _input(node, 3)
    if x is None or not _needs_shield(node):
        return False
    name, integers, kept = str(output.name), np.dtype(np.int64), [*x.shape][:2] if x.shape is not None else []
    before = _sizes_of(builder, node, x)
    if "axes" not in attrs and sizes is not None and _is_given(sizes):  # the channels' number is another now
        attrs["axes"], sizes = [2, 3], _list(builder, node, _parts(sizes, 4)[2:], integers, f"{name}_sizes")
    pictures = _list(builder, node, [-1, 1, *before[2:]], integers, f"{name}_pictures")
    flat_shape = ir.Shape([None, 1, *list(x.shape or ())[2:]])
    flat = builder.add("Reshape", [x, pictures], name=f"{name}_flat", shape=flat_shape, before=node)
    resized_shape = ir.Shape([None, 1, *list(output.shape or [None] * 4)[2:]])
    operands = [flat, *node.inputs[1:3], *([sizes] if len(node.inputs) > 3 else [])]
    resized = builder.add("Resize", operands, attrs, name=f"{name}_Resize", shape=resized_shape, before=node)
    after = _sizes_of(builder, node, resized)
    target = _list(builder, node, [*before[:2], *after[2:]], integers, f"{name}_maps")
    map_shape = ir.Shape([*kept, *resized_shape[2:]])
    result = builder.add("Reshape", [resized, target], name=f"{name}_map", like=output, shape=map_shape, before=node)
    mark_makers((flat, resized, result), RESIZE)
    builder.replace(output, result, [node])
    return True


def _keeps_ratio(attrs: Mapping[str, Any]) -> bool:
    return str(attrs.get("keep_aspect_ratio_policy", "stretch")) != "stretch"


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


def _is_given(value: ir.Value | None) -> bool:
    array = constant(value)
    return value is not None and (array is None or array.size > 0)


def _rank(x: ir.Value | None) -> int:
    return len(x.shape) if x is not None and x.shape is not None else 0


def _axes(x: ir.Value | None, axes: Sequence[int] | np.ndarray | None) -> list[int] | None:
    """The axes counted from the front; None if there are none or the rank is not known."""
    rank = _rank(x)
    return None if axes is None or not rank else [int(a) % rank for a in axes]


def _parts(value: ir.Value, count: int) -> list[Part]:
    array = constant(value)
    return [(value, i) for i in range(count)] if array is None else array.reshape(-1).tolist()


def _sizes_of(builder: GraphBuilder, node: ir.Node, x: ir.Value) -> list[Part]:
    """The size of each axis, read from the tensor where it is open."""
    sizes = list(x.shape or ())
    if all(isinstance(size, int) for size in sizes):
        return [int(size) for size in sizes]  # type: ignore[arg-type]
    name, length = f"{node.outputs[0].name}_Shape", ir.Shape([len(sizes)])
    shape = builder.add("Shape", [x], name=name, dtype=ir.DataType.INT64, shape=length, before=node)
    return [size if isinstance(size, int) else (shape, i) for i, size in enumerate(sizes)]


def _complete(
    builder: GraphBuilder, node: ir.Node, index: int, value: ir.Value | None, axes: Sequence[int], rest: list[Part], dtype: np.dtype
) -> None:
    """Put the given list for some axes into the one for all."""
    assert value is not None
    parts = list(rest)
    for axis, part in zip(axes, _parts(value, len(axes)), strict=True):
        parts[axis] = part
    what = "scales" if index == 2 else "sizes"
    node.replace_input_with(index, _list(builder, node, parts, dtype, f"{node.outputs[0].name}_{what}"))


def _complete_roi(builder: GraphBuilder, node: ir.Node, roi: ir.Value, axes: Sequence[int], rank: int) -> None:
    given, full = _parts(roi, 2 * len(axes)), [0.0] * rank + [1.0] * rank
    parts: list[Part] = list(full)
    for place, axis in enumerate(axes):
        parts[axis], parts[rank + axis] = given[place], given[len(axes) + place]
    assert roi.dtype is not None
    node.replace_input_with(1, _list(builder, node, parts, roi.dtype.numpy(), f"{node.outputs[0].name}_roi"))


def _common_factor(x: ir.Value, axes: Sequence[int], sizes: np.ndarray | None, policy: str) -> float | None:
    """The factor that keeps the aspect ratio, if the sizes that it gives are those that the runtime takes from it as a scale."""
    lengths = [x.shape[axis] for axis in axes] if x.shape is not None else []
    if sizes is None or not all(isinstance(n, int) for n in lengths):
        return None
    present = np.asarray(lengths, np.float32)
    ratios = sizes.astype(np.float32) / present
    factor = ratios.min() if policy == "not_larger" else ratios.max()
    return float(factor) if np.array_equal(np.floor(factor * present), np.floor(factor * present + np.float32(0.5))) else None


def _list(builder: GraphBuilder, node: ir.Node, parts: Sequence[Part], dtype: np.dtype, name: str) -> ir.Value:
    """A list of numbers in front of a node: a constant, or joined from constants and what is gathered from computed lists."""
    pieces: list[ir.Value] = []
    start = 0
    while start < len(parts):
        end = start + 1
        while end < len(parts) and _source(parts[end]) is _source(parts[start]):
            end += 1
        pieces.append(_piece(builder, node, parts[start:end], dtype, name))
        start = end
    if len(pieces) == 1:
        return pieces[0]
    kind, shape = ir.DataType.from_numpy(dtype), ir.Shape([len(parts)])
    return builder.add("Concat", pieces, {"axis": 0}, name=f"{name}_Concat", dtype=kind, shape=shape, before=node)


def _source(part: Part) -> ir.Value | None:
    return part[0] if isinstance(part, tuple) else None


def _piece(builder: GraphBuilder, node: ir.Node, parts: Sequence[Part], dtype: np.dtype, name: str) -> ir.Value:
    source = _source(parts[0])
    if source is None:
        return builder.initializer(name, np.asarray(parts, dtype))
    index = builder.initializer(f"{name}_index", np.asarray([p[1] for p in parts if isinstance(p, tuple)], np.int64))
    kind, shape = ir.DataType.from_numpy(dtype), ir.Shape([len(parts)])
    return builder.add("Gather", [source, index], name=f"{name}_Gather", dtype=kind, shape=shape, before=node)
