"""Weighted layers with constant weights: which number of an operand meets which channel, and how weights take it in.

Layouts: Conv [out, in / groups, ...], ConvTranspose [in, out / groups, ...], Gemm [in, out] or, transposed, [out, in],
MatMul [..., in, out]. Channels lie on axis 1 of a Conv's or ConvTranspose's data and on the last axis of the others'.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.graph.builder import GraphBuilder
from converter.graph.operator_sets import CONVOLUTIONS
from converter.graph.queries import attributes, constant, data_inputs

__all__ = [
    "bias_of",
    "is_layer",
    "pads",
    "per_input",
    "per_output",
    "rank_of",
    "scale_inputs",
    "scale_outputs",
    "set_weights",
    "sum_inputs",
]

Array = npt.NDArray[Any]


def is_layer(node: ir.Node | None, *op_types: str) -> bool:
    """True for a layer of these types whose weight and bias are constants and act on the one computed input as they are."""
    if node is None or node.op_type not in op_types:
        return False
    weight = constant(node.inputs[1])
    if weight is None or weight.ndim < 2 or [i for i, _ in data_inputs(node)] != [0]:
        return False
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant(bias_value)
    if bias_value is not None and (bias is None or bias.size not in (1, bias.shape[-1] if bias.ndim else 1)):
        return False
    attrs = attributes(node)
    return attrs.get("alpha", 1.0) == 1.0 and attrs.get("beta", 1.0) == 1.0 and not attrs.get("transA", 0)


def per_output(layer: ir.Node, operand: Array, rank: int) -> Array | None:
    """The operand of a binary node behind the layer as one number per output channel, or None if it is not of that form."""
    weight = _weight(layer)
    if layer.op_type == "Conv":
        channels = weight.shape[0]
    elif layer.op_type == "ConvTranspose":
        channels = weight.shape[1] * _groups(layer)
    else:
        channels = weight.shape[0 if _transposed(layer) else -1]
    return _along(operand, _channel_axis(layer, rank), rank, channels)


def per_input(layer: ir.Node, operand: Array, x: ir.Value, rank: int) -> Array | None:
    """The operand of a binary node between ``x`` and the layer as one number per input channel.

    None if it is not of that form, or if it broadcasts ``x`` to a larger shape.
    """
    weight = _weight(layer)
    if layer.op_type == "Conv":
        channels = weight.shape[1] * _groups(layer)
    elif layer.op_type == "ConvTranspose":
        channels = weight.shape[0]
    else:
        channels = weight.shape[1 if _transposed(layer) else -2]
    axis = _channel_axis(layer, rank)
    if x.shape is None or len(x.shape) != rank or (operand.size > 1 and x.shape[axis] != channels):
        return None
    return _along(operand, axis, rank, channels)


def scale_outputs(layer: ir.Node, factor: Array) -> Array:
    """The weight with which the layer gives ``factor``, one number per output channel, times its output; float64."""
    weight = _weight(layer)
    if layer.op_type == "Conv":
        return _product(weight, factor.reshape(-1, *[1] * (weight.ndim - 1)))
    if layer.op_type == "ConvTranspose":
        groups = _groups(layer)
        split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        return _product(split, factor.reshape(groups, 1, -1, 1)).reshape(weight.shape)
    return _product(weight, factor[:, None] if _transposed(layer) else factor)


def scale_inputs(layer: ir.Node, factor: Array) -> Array:
    """The weight with which the layer gives the same when its input is divided by ``factor``, one per input channel; float64."""
    weight = _weight(layer)
    if layer.op_type == "Conv":
        per_group = np.repeat(factor.reshape(_groups(layer), -1), weight.shape[0] // _groups(layer), axis=0)
        return _product(weight, per_group.reshape(*per_group.shape, *[1] * (weight.ndim - 2)))
    if layer.op_type == "ConvTranspose":
        return _product(weight, factor.reshape(-1, *[1] * (weight.ndim - 1)))
    return _product(weight, factor if _transposed(layer) else factor[:, None])


def sum_inputs(layer: ir.Node, offset: Array) -> Array:
    """What ``offset``, one number per input channel, contributes to each output channel of a Conv or Gemm that does not pad."""
    shifted = scale_inputs(layer, offset)
    total: Array = shifted.sum(axis=0 if layer.op_type == "Gemm" and not _transposed(layer) else tuple(range(1, shifted.ndim)))
    return total


def bias_of(layer: ir.Node, channels: int) -> Array | None:
    """The bias as one number per output channel, float64; None if the layer has none."""
    array = constant(layer.inputs[2]) if layer.op_type != "MatMul" and len(layer.inputs) > 2 else None
    return None if array is None else np.broadcast_to(array.astype(np.float64).reshape(-1), (channels,))


def set_weights(builder: GraphBuilder, layer: ir.Node, weight: Array | None, bias: Array | None) -> bool:
    """Give the layer a new weight, bias or both (None keeps what it has); False, and no change, if float32 does not hold them."""
    with np.errstate(over="ignore"):
        new = {1: weight, 2: bias}
        rounded = {index: a.astype(np.float32) for index, a in new.items() if a is not None}
    if not all(np.isfinite(a).all() for a in rounded.values()):
        return False
    for index, array in rounded.items():
        if len(layer.inputs) <= index:
            layer.resize_inputs(index + 1)
        kind = "weight" if index == 1 else "bias"
        layer.replace_input_with(index, builder.initializer(f"{layer.outputs[0].name}_{kind}", array))
    return True


def pads(layer: ir.Node) -> bool:
    """True if a convolution adds a border of zeros."""
    attrs = attributes(layer)
    return any(attrs.get("pads", [])) or attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID", "")


def rank_of(value: ir.Value) -> int | None:
    """Number of dimensions, if known."""
    return None if value.shape is None else len(value.shape)


def _weight(layer: ir.Node) -> Array:
    weight = constant(layer.inputs[1])
    assert weight is not None
    return weight


def _product(weight: Array, factor: Array) -> Array:
    product: Array = weight.astype(np.float64) * factor
    return product


def _groups(layer: ir.Node) -> int:
    return int(attributes(layer).get("group", 1))


def _transposed(layer: ir.Node) -> bool:
    return layer.op_type == "Gemm" and bool(attributes(layer).get("transB", 0))


def _channel_axis(layer: ir.Node, rank: int) -> int:
    return 1 if layer.op_type in CONVOLUTIONS else rank - 1


def _along(operand: Array, axis: int, rank: int, channels: int) -> Array | None:
    if operand.ndim > rank:
        return None
    if operand.size == 1:
        return np.full(channels, operand.item(), np.float64)
    shape = (1,) * (rank - operand.ndim) + operand.shape
    if any(n != 1 for i, n in enumerate(shape) if i != axis) or shape[axis] != channels:
        return None
    return operand.astype(np.float64).reshape(channels)
