"""Layers as convolutions of another image, which give the same sums and so the same codes for less, where a target's prices say so.

1. A product with a constant matrix as a convolution of size 1: rows are places of an image that is one column.
2. A convolution with a stride of 2 of an image that has few channels as one with a stride of 1: four columns side by side are one with four
   times the channels, and two columns of the result likewise. Channels last, that is a Reshape. A kernel of three columns becomes one of
   two such columns, with zeros where it does not reach.

ONNX wants channels first, hence a Transpose on each side. ONNX Runtime computes with channels last, puts the opposite ones around the
convolution and takes both pairs out: seen in 1.17.3, 1.19.2, 1.23.2 and 1.32.0. Codes narrower than their container are clipped
behind all that, so that nothing stands in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.graph.queries import attributes, constant
from converter.plan.constants import bias_of, weight_codes
from converter.plan.records import OpPlan
from converter.quantization.bias import integer_bias
from converter.quantization.parameters import QuantParams

if TYPE_CHECKING:
    from converter.emit.builder import Writer

__all__ = ["CHANNELS_FIRST", "CHANNELS_LAST", "emit_columns", "emit_rows", "grid_and_bias", "takes_columns", "written_shape"]

_TOGETHER = 4
"""Columns that become one."""

_STRIDE = 2
_FEW = 4
"""Channels of an image at most: with more, the zeros in the kernel cost more than a wider image saves."""

CHANNELS_FIRST, CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
"""How a Transpose brings channels first, and last again."""


def written_shape(node: ir.Node) -> list[int]:
    """Of the output, -1 for one side that is open; nothing if more are."""
    shape = node.outputs[0].shape
    sides = [side if isinstance(side, int) else -1 for side in shape] if shape is not None else []
    return sides if sides.count(-1) <= 1 and 0 not in sides else []


def takes_columns(node: ir.Node) -> bool:
    """True for a convolution of the second case."""
    attrs, weight, x = attributes(node), constant(node.inputs[1]), node.inputs[0]
    if x is None or _scaled_by_channel(x):
        return False
    sides = list(x.shape) if x.shape is not None else []
    if weight is None or weight.ndim != 4 or weight.shape[3] != 3 or weight.shape[1] > _FEW or len(sides) != 4:
        return False
    if not all(isinstance(side, int) for side in sides[1:]) or sides[3] % _TOGETHER or len(written_shape(node)) != 4:
        return False
    plain = attrs.get("group", 1) == 1 and attrs.get("auto_pad", "NOTSET") in ("NOTSET", "") and set(attrs.get("dilations", [1])) == {1}
    pads, strides = attrs.get("pads", [0] * 4), attrs.get("strides", [1, 1])
    return bool(plain and strides[1] == _STRIDE and pads[1] == 1 and pads[3] in (0, 1))


def _scaled_by_channel(value: ir.Value) -> bool:
    """True for what has a factor for each channel, which becomes a Q with as many scales: nothing but a DQ may stand behind that."""
    maker = value.producer()
    factors = [constant(v) for v in maker.inputs] if maker is not None and maker.op_type == "Mul" else []
    return any(factor is not None and factor.size > 1 for factor in factors)


def grid_and_bias(
    node: ir.Node, op: OpPlan, x_grid: QuantParams
) -> tuple[QuantParams, npt.NDArray[np.int32] | None, npt.NDArray[np.float32]]:
    """The grid of a layer's weights, which may give way to its bias; codes of the bias, int32, None if there is none; their scales."""
    array = bias_of(op, constant(node.inputs[2])) if len(node.inputs) > 2 else None
    return (op.constants[1], None, np.empty(0, np.float32)) if array is None else integer_bias(array, x_grid.scale[0], op.constants[1])


def emit_rows(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    """Case 1."""
    new, name, x, matrix = writer.new, str(node.name), node.inputs[0], constant(node.inputs[1])
    assert x is not None and matrix is not None
    weights, codes, scale = grid_and_bias(node, op, writer.codes[x].params)
    kernel = weight_codes(op, 1, matrix, weights)
    kernel = (kernel if weights.axis == 0 else kernel.T)[:, :, None, None]
    image = new.reshape(writer.codes[x].value, [1, -1, 1, kernel.shape[1]], f"{name}_to_image")
    image = new.transpose(image, CHANNELS_FIRST, f"{name}_channels_first")

    def to_rows(value: ir.Value) -> ir.Value:
        return new.reshape(new.transpose(value, CHANNELS_LAST, f"{name}_channels_last"), written_shape(node), f"{name}_to_rows")

    bias = None if codes is None else (codes, scale)
    _convolve(writer, node, op, image, (kernel, replace(weights, axis=0)), bias, {"kernel_shape": [1, 1]}, to_rows)


def emit_columns(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    """Case 2."""
    new, name, x, weight, attrs = writer.new, str(node.name), node.inputs[0], constant(node.inputs[1]), attributes(node)
    assert x is not None and x.shape is not None and weight is not None
    weights, codes, scale = grid_and_bias(node, op, writer.codes[x].params)
    results = _TOGETHER // _STRIDE
    batch, channels, height, width = (side if isinstance(side, int) else -1 for side in x.shape)
    # named like the changes of layout that the runtime puts in, for which a chain of layers pays nothing
    image = new.transpose(writer.codes[x].value, CHANNELS_LAST, f"Transpose_{name}_to_image")
    image = new.reshape(image, [batch, height, width // _TOGETHER, _TOGETHER * channels], f"{name}_together")
    image = new.transpose(image, CHANNELS_FIRST, f"{name}_channels_first")
    sides = written_shape(node)

    def apart(value: ir.Value) -> ir.Value:
        value = new.transpose(value, CHANNELS_LAST, f"{name}_channels_last")
        value = new.reshape(value, [sides[0], *sides[2:], sides[1]], f"{name}_apart")
        return new.transpose(value, CHANNELS_FIRST, f"Transpose_{name}_from_image")

    kernel = _spread(weight_codes(op, 1, weight, weights))
    grid = replace(weights, scale=weights.scale * results, zero_point=weights.zero_point * results)
    bias = None if codes is None else (np.tile(codes, results), np.tile(scale, results))
    strides, pads = attrs.get("strides", [1, 1]), attrs.get("pads", [0] * 4)
    shape = {"kernel_shape": list(kernel.shape[2:]), "strides": [strides[0], 1], "pads": [pads[0], 1, pads[2], 0]}
    _convolve(writer, node, op, image, (kernel, grid), bias, shape, apart)


def _spread(kernel: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
    """[out, in, height, 3] -> [results * out, columns * in, height, 2]: what numbers of four columns, and of four before, count for."""
    out, channels, height, width = kernel.shape
    results = _TOGETHER // _STRIDE
    spread = np.zeros((results, out, _TOGETHER, channels, height, 2), kernel.dtype)
    for result in range(results):
        for place in range(width):
            column = result * _STRIDE + place - 1  # one before the first lies among the four before
            spread[result, :, column % _TOGETHER, :, :, int(column >= 0)] = kernel[..., place]
    return spread.reshape(results * out, _TOGETHER * channels, height, 2)


def _convolve(
    writer: Writer,
    node: ir.Node,
    op: OpPlan,
    image: ir.Value,
    kernel: tuple[npt.NDArray[np.integer[Any]], QuantParams],
    bias: tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]] | None,
    attrs: Mapping[str, Any],
    move: Callable[[ir.Value], ir.Value],
) -> None:
    """A convolution in the place of a layer, whose codes ``move`` brings in order, behind a clamp if one follows."""
    new, name, x, out = writer.new, str(node.name), node.inputs[0], node.outputs[0]
    assert x is not None
    constants = [str(v.name) if v is not None else "" for v in node.inputs]
    factors = [
        new.dequantize(image, writer.codes[x].params, f"{x.name}_{name}"),
        new.dequantize(new.initializer(f"{name}_{constants[1]}_quantized", kernel[0]), kernel[1], f"{name}_{constants[1]}"),
        *([] if bias is None else [new.bias(*bias, f"{name}_{constants[2]}")]),
    ]
    sums = writer.stand_in(node, "Conv", factors, attrs)
    if op.writes == "fused":
        writer.real[out], writer.moves[out] = sums, move
    else:
        grid = writer.params_of(out)
        writer.quantize(out, sums, (grid.qmin, grid.qmax), move)
