"""Rules for operators that let factors and shifts pass, or give them to a constant beside."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from converter.graph.queries import attributes, constant, data_inputs, is_float, scalar
from converter.torch_backend import ops as torch_ops
from converter.transforms.equalization.labels import Labels
from converter.transforms.equalization.tracker import RawScaling, RawShifting, Tracked, Tracker

__all__ = ["addition", "combine", "homogeneous", "movement", "pooled", "product_by_element", "quotient", "reduced", "resized"]


def homogeneous(tracker: Tracker, node: ir.Node) -> None:
    """f(s x) = s f(x) for positive s; a computed slope has no factor of its own."""
    x, *rest = node.inputs
    limits = [scalar(v) for v in rest]
    if node.op_type == "Clip" and not (limits[:1] == [0.0] and all(v is None for v in rest[1:])):
        tracker.opaque(node)
        return
    for value in rest:
        tracker.pin(value)
    tracked = tracker.labels(x)
    tracker.shift.pin(tracked.shift)
    tracker.store(node.outputs[0], tracked.scale)


def combine(tracker: Tracker, node: ir.Node) -> None:
    """Largest or smallest of several tensors: one factor and one shift for all of them, and none beside a constant."""
    first, *rest = (tracker.labels(v) for v in node.inputs)
    for other in rest:
        tracker.scale.join(first.scale, other.scale)
        tracker.shift.join(first.shift, other.shift)
        first = Tracked(_broadcast(first.scale, other.scale), _broadcast(first.shift, other.shift))
    tracker.store(node.outputs[0], first.scale, first.shift)


def addition(tracker: Tracker, node: ir.Node) -> None:
    """Sum or difference: one factor for both operands. A constant beside takes the factor and, added, gives a new shift."""
    arrays = [constant(v) for v in node.inputs]
    if all(array is None for array in arrays):
        left, right = (tracker.labels(v) for v in node.inputs)
        tracker.scale.join(left.scale, right.scale)
        tracker.shift.pin(left.shift)
        tracker.shift.pin(right.shift)
        tracker.store(node.outputs[0], _broadcast(left.scale, right.scale))
        return
    operand = _beside_constant(tracker, node, arrays)
    if operand is None:
        tracker.opaque(node)
        return
    index, array, tracked = operand
    tracker.shift.pin(tracked.shift)
    tracker.scalings.append(RawScaling(str(node.name), index, _like(tracked.scale, array), -1))
    shift = None
    if node.op_type == "Add" and array.size > 1:
        shift = tracker.shift.fresh(*array.shape)
        tracker.shiftings.append(RawShifting(str(node.name), index, shift))
    tracker.store(node.outputs[0], tracked.scale, shift)


def product_by_element(tracker: Tracker, node: ir.Node) -> None:
    """A number beside lets factors pass; a constant array takes those of the input and gives new ones."""
    arrays = [constant(v) for v in node.inputs]
    if all(array is None for array in arrays):
        _product_of_two(tracker, node)
        return
    operand = _beside_constant(tracker, node, arrays)
    if operand is None:
        tracker.opaque(node)
        return
    index, array, tracked = operand
    tracker.shift.pin(tracked.shift)
    if array.size == 1:
        tracker.store(node.outputs[0], tracked.scale)
        return
    fresh = tracker.scale.fresh(*array.shape)
    tracker.scalings.append(RawScaling(str(node.name), index, _like(tracked.scale, array), 1))
    tracker.scalings.append(RawScaling(str(node.name), index, fresh, -1))
    tracker.store(node.outputs[0], fresh)


def _product_of_two(tracker: Tracker, node: ir.Node) -> None:
    """The factors of one operand pass if the other has none; if both have some, the one with more different ones is let."""
    left, right = (tracker.labels(v) for v in node.inputs)
    tracker.shift.pin(left.shift)
    tracker.shift.pin(right.shift)
    passes, other = (left, right) if tracker.scale.count(left.scale) >= tracker.scale.count(right.scale) else (right, left)
    tracker.scale.pin(other.scale)
    tracker.store(node.outputs[0], passes.scale)


def quotient(tracker: Tracker, node: ir.Node) -> None:
    """The factors of what is divided pass, where the divisor has none and is no larger."""
    x, divisor = node.inputs
    shape = None if x is None else tracker.shape(x)
    if constant(x) is not None or constant(divisor) is not None or shape is None or shape != tracker.shape(node.outputs[0]):
        tracker.opaque(node)
        return
    divided, by = tracker.labels(x), tracker.labels(divisor)
    tracker.shift.pin(divided.shift)
    tracker.shift.pin(by.shift)
    tracker.scale.pin(by.scale)
    tracker.store(node.outputs[0], divided.scale)


def pooled(tracker: Tracker, node: ir.Node) -> None:
    """Averages and maxima over positions."""
    x, attrs = node.inputs[0], attributes(node)
    shape = None if x is None else tracker.shape(x)
    if shape is None or (len(node.outputs) > 1 and node.outputs[1].uses()):
        tracker.opaque(node)
        return
    tracked = tracker.merged(x, range(2, len(shape)))
    padded = any(attrs.get("pads", [])) or attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or attrs.get("ceil_mode", 0)
    if node.op_type == "AveragePool" and padded and attrs.get("count_include_pad", 0):
        tracker.shift.pin(tracked.shift)  # the border's zeros are averaged in
    tracker.store(node.outputs[0], tracked.scale, tracked.shift)


def reduced(tracker: Tracker, node: ir.Node) -> None:
    """Sum, mean, maximum or minimum over axes; a sum changes the shift by how many are summed."""
    x = node.inputs[0]
    shape = None if x is None else tracker.shape(x)
    array = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if shape is None or array is None or array.size == 0:
        tracker.opaque(node)
        return
    axes = sorted({int(a) % len(shape) for a in array.reshape(-1)})
    tracked = tracker.merged(x, axes)
    if node.op_type == "ReduceSum":
        tracker.shift.pin(tracked.shift)
    scale, shift = tracked.scale, tracked.shift
    if not attributes(node).get("keepdims", 1):
        scale, shift = (labels.squeeze(tuple(axes)) for labels in (scale, shift))
    tracker.store(node.outputs[0], scale, shift)


def resized(tracker: Tracker, node: ir.Node) -> None:
    """Interpolation along some axes, with weights that sum to one."""
    x, output = node.inputs[0], node.outputs[0]
    before, after = (None if v is None else tracker.shape(v) for v in (x, output))
    if before is None or after is None or attributes(node).get("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        tracker.opaque(node)
        return
    tracked = tracker.merged(x, [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b])
    tracker.store(output, tracked.scale, tracked.shift)


def movement(tracker: Tracker, node: ir.Node) -> None:
    """Move the labels as the data are moved."""
    floats = [i for i, v in enumerate(node.inputs) if v is not None and is_float(v)]
    shapes = [tracker.shape(v) for v in (*(node.inputs[i] for i in floats), *node.outputs) if v is not None]
    constants_known = all(i in floats or v is None or constant(v) is not None for i, v in enumerate(node.inputs))
    if None in shapes or not (constants_known or node.op_type in ("Reshape", "Expand")):
        tracker.opaque(node)
        return
    moved = []
    for pick in ("scale", "shift"):
        inputs: list[torch.Tensor | None] = []
        for index, value in enumerate(node.inputs):
            array = constant(value)
            if value is not None and index in floats:
                shape = tracker.shape(value)
                assert shape is not None
                inputs.append(torch.from_numpy(np.broadcast_to(getattr(tracker.labels(value), pick), shape).copy()))
            elif node.op_type in ("Reshape", "Expand") and index == 1:
                inputs.append(torch.tensor(tracker.shape(node.outputs[0]), dtype=torch.int64))
            else:
                inputs.append(None if array is None else torch.from_numpy(np.array(array)))
        moved.append([t.numpy() for t in torch_ops.apply(node.op_type, inputs, attributes(node))])
    for output, scale, shift in zip(node.outputs, *moved, strict=False):
        tracker.store(output, scale, shift)


def _beside_constant(
    tracker: Tracker, node: ir.Node, arrays: list[npt.NDArray[Any] | None]
) -> tuple[int, npt.NDArray[Any], Tracked] | None:
    """Index and array of the constant operand, and the labels of the other, which do not vary where the constant does not."""
    operands = list(data_inputs(node))
    if len(operands) != 1 or len(node.inputs) != 2:
        return None
    ((at, value),) = operands
    array = arrays[1 - at]
    shape = tracker.shape(value)
    if array is None or shape is None or array.ndim > len(shape):
        return None
    if array.size == 1 and node.op_type == "Mul":
        return 1 - at, array, tracker.labels(value)
    lengths = (1,) * (len(shape) - array.ndim) + array.shape
    if any(n == 1 and m != 1 for n, m in zip(shape, lengths, strict=True)):
        return None
    return 1 - at, array, tracker.merged(value, [i for i, n in enumerate(lengths) if n == 1])


def _like(labels: Labels, array: npt.NDArray[Any]) -> Labels:
    """Labels with the rank of an array that broadcasts against them."""
    return labels.reshape(labels.shape[labels.ndim - array.ndim :])


def _broadcast(left: Labels, right: Labels) -> Labels:
    """Labels of what two operands with joined labels are combined to."""
    return np.asarray(np.broadcast_arrays(left, right)[0])
