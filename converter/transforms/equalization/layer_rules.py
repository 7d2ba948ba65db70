"""Rules for operators whose constants take factors and shifts: layers, products of two tensors, normalizations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.graph.queries import attributes, constant, sole_consumer
from converter.transforms.equalization.labels import Labels
from converter.transforms.equalization.tracker import RawBiasAbsorption, RawScaling, RawShifting, Reading, Tracked, Tracker

__all__ = ["conv", "gemm", "matmul", "normalization"]


def conv(tracker: Tracker, node: ir.Node) -> None:
    """Weights take the factors of the input channels, weights and bias those of the output; border zeros allow no shift."""
    weight, x = constant(node.inputs[1]), node.inputs[0]
    shape = None if x is None else tracker.shape(x)
    if weight is None or shape is None or not _constant_or_absent(node, 2):
        tracker.opaque(node)
        return
    outputs, attrs = weight.shape[0], attributes(node)
    tracked = tracker.merged(x, [i for i in range(len(shape)) if i != 1])
    padded = any(attrs.get("pads", [])) or attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    per_group, groups = weight.shape[1], attrs.get("group", 1)
    # weight [o, i] is multiplied with input channel i of the group that output o belongs to
    read = (np.arange(outputs) // (outputs // groups) * per_group)[:, None] + np.arange(per_group)
    trailing = [1] * (weight.ndim - 2)
    scale, shift = (np.broadcast_to(labels.reshape(-1), shape[1])[read].reshape(*read.shape, *trailing) for labels in _both(tracked))
    _read(tracker, node, scale)
    _take_up(tracker, node, None if padded else shift, tracked, 0, (node, 2))
    _write(tracker, node, weight, 0, (outputs, *[1] * (weight.ndim - 2)))


def gemm(tracker: Tracker, node: ir.Node) -> None:
    """A layer on the last axis, with the factors alpha and beta, which allow no shift, or without."""
    weight, attrs = constant(node.inputs[1]), attributes(node)
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if weight is None or not _constant_or_absent(node, 2) or attrs.get("transA", 0):
        tracker.opaque(node)
        return
    axis = 0 if attrs.get("transB", 0) else 1
    if bias is not None and (bias.ndim == 0 or bias.shape[-1] != weight.shape[axis]):
        tracker.opaque(node)
        return
    tracked = tracker.merged(node.inputs[0], [0])
    plain = attrs.get("alpha", 1.0) == 1.0 and attrs.get("beta", 1.0) == 1.0
    scale, shift = (_along(labels, 1 - axis) for labels in _both(tracked))
    _read(tracker, node, scale)
    _take_up(tracker, node, shift if plain else None, tracked, axis, (node, 2))
    _write(tracker, node, weight, axis, (weight.shape[axis],), bias=plain)


def matmul(tracker: Tracker, node: ir.Node) -> None:
    """A layer if the right operand is a constant matrix; a product of two tensors otherwise."""
    left, right = node.inputs
    assert left is not None and right is not None
    weight = constant(right)
    if weight is None and constant(left) is None:
        _product(tracker, node, left, right)
        return
    shape = tracker.shape(left)
    if weight is None or weight.ndim != 2 or shape is None or len(shape) < 2:
        tracker.opaque(node)
        return
    tracked = tracker.merged(left, range(len(shape) - 1))
    scale, shift = (_along(labels, 0) for labels in _both(tracked))
    _read(tracker, node, scale)
    bias = _addition_behind(node, weight.shape[1])
    _take_up(tracker, node, shift if bias is not None else None, tracked, 1, bias)
    _write(tracker, node, weight, 1, (weight.shape[1],), bias=False)


def normalization(tracker: Tracker, node: ir.Node) -> None:
    """Gamma and beta take what is behind; what is in front is pinned, for its mean and variance are taken."""
    gamma, output = constant(node.inputs[1]), node.outputs[0]
    shape = tracker.shape(output)
    tracker.opaque(node)
    if gamma is None or gamma.ndim != 1 or shape is None or not _constant_or_absent(node, 2):
        return
    trailing: tuple[int, ...] = ()
    if node.op_type == "InstanceNormalization":
        trailing = (1,) * (len(shape) - 2)
    elif attributes(node).get("axis", -1) not in (-1, len(shape) - 1):
        return
    _write(tracker, node, gamma, 0, (gamma.shape[0], *trailing))


def _product(tracker: Tracker, node: ir.Node, left: ir.Value, right: ir.Value) -> None:
    """Sum over k of a[i, k] b[k, j].

    Factors that vary along k on both sides cancel: those of a are the inverse of those of b (query and key). Otherwise
    those of one side pass, if they do not vary along k, and the other side has none (attention weights and value). A
    shift of b passes if the rows of a sum to one: sum of a[i, k] (b[k, j] - m[j]) = (sum of a[i, k] b[k, j]) - m[j].
    """
    shapes = tracker.shape(left), tracker.shape(right)
    if any(shape is None or len(shape) < 2 for shape in shapes) or left is right:
        tracker.opaque(node)
        return
    tracker.readings.append(Reading(left, node, 0, False))
    tracker.readings.append(Reading(right, node, 1, False))
    classes, a, b = tracker.scale, tracker.labels(left), tracker.labels(right)
    tracker.shift.pin(a.shift)
    if a.scale.any() and b.scale.any() and (a.scale.shape[-1] > 1 or b.scale.shape[-2] > 1):
        rows = tracker.merged(left, [-2]).scale
        columns = tracker.merged(right, [-1]).scale
        classes.join(rows, -np.swapaxes(columns, -1, -2))
        tracker.shift.pin(b.shift)
        tracker.store(node.outputs[0])
        return
    passes_right = bool(b.scale.any()) and not (a.scale.any() and classes.count(a.scale) > classes.count(b.scale))
    classes.pin(a.scale if passes_right else b.scale)
    if not passes_right:
        tracker.shift.pin(b.shift)
        tracker.store(node.outputs[0], tracker.merged(left, [-1]).scale)
        return
    if not _rows_sum_to_one(left):
        tracker.shift.pin(b.shift)
    passed = tracker.merged(right, [-2])
    tracker.store(node.outputs[0], passed.scale, passed.shift)


def _rows_sum_to_one(value: ir.Value) -> bool:
    producer = value.producer()
    if producer is None or producer.op_type != "Softmax":
        return False
    rank = len(value.shape) if value.shape is not None else 0
    return attributes(producer).get("axis", -1) in (-1, rank - 1)


def _addition_behind(node: ir.Node, channels: int) -> tuple[ir.Node, int] | None:
    """The addition of constants with all channels that serves a layer as its bias, and the index of that operand."""
    follower = sole_consumer(node.outputs[0])
    if follower is None or follower.op_type != "Add":
        return None
    for index, value in enumerate(follower.inputs):
        array = constant(value)
        if array is not None and array.ndim > 0 and array.shape[-1] == channels:
            return follower, index
    return None


def _constant_or_absent(node: ir.Node, index: int) -> bool:
    value = node.inputs[index] if len(node.inputs) > index else None
    return value is None or constant(value) is not None


def _both(tracked: Tracked) -> tuple[Labels, Labels]:
    return tracked.scale, tracked.shift


def _along(labels: Labels, axis: int) -> Labels:
    """Labels of a vector, to broadcast against a matrix along one of its axes."""
    return labels.reshape((-1, 1) if axis == 0 else (1, -1))


def _read(tracker: Tracker, node: ir.Node, labels: Labels) -> None:
    value = node.inputs[0]
    assert value is not None
    tracker.readings.append(Reading(value, node, 0, True))
    tracker.scalings.append(RawScaling(str(node.name), 1, labels, 1))


def _take_up(tracker: Tracker, node: ir.Node, labels: Labels | None, tracked: Tracked, axis: int, bias: tuple[ir.Node, int] | None) -> None:
    if labels is None or bias is None:
        tracker.shift.pin(tracked.shift)
    else:
        tracker.absorptions.append(RawBiasAbsorption(str(node.name), labels, axis, str(bias[0].name), bias[1]))


def _write(tracker: Tracker, node: ir.Node, weight: npt.NDArray[Any], axis: int, shape: tuple[int, ...], *, bias: bool = True) -> None:
    """New labels for the output; ``shape`` places them in it, counted from its last axis."""
    name, count = str(node.name), weight.shape[axis]
    labels = tracker.scale.fresh(count)
    tracker.scalings.append(RawScaling(name, 1, labels.reshape([-1 if i == axis else 1 for i in range(weight.ndim)]), -1))
    if node.op_type != "MatMul":  # the bias may be missing: a shift would add it, and it is scaled then
        tracker.scalings.append(RawScaling(name, 2, labels, -1))
    shift = None
    if bias:
        shift = tracker.shift.fresh(count)
        tracker.shiftings.append(RawShifting(name, 2, shift))
    tracker.store(node.outputs[0], labels.reshape(shape), None if shift is None else shift.reshape(shape))
