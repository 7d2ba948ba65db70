"""Write a QDQ model with unsigned codes: every int8 code c becomes the uint8 code c + 128, and all numbers stay.

ONNX Runtime's kernels for unsigned codes on both sides are fast on every x86 processor and do not saturate; those that
take signed ones either saturate (without VNNI) or run without vector instructions. What a model computes can be
measured quickly this way. Only constants and declared types change.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from converter.graph.operator_sets import MOVEMENT

__all__ = ["unsigned_codes"]

_OFFSET = 128

_KEEP_CODES = MOVEMENT - {"Expand", "Resize", "Tile"} | {"Concat", "Identity", "MaxPool"}
"""Operators that move codes, or choose among them, and know no number of their own."""

_COMPARE_CODES = frozenset({"Clip", "Max", "Min"})


def unsigned_codes(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy with uint8 codes, or None where codes are read by an operator that would not give the same.

    Args:
        model: with all tensors inside; left as it is.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    codes = {t.name for t in graph.initializer if t.data_type == TensorProto.INT8}
    for node in graph.node:
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS, onnx.AttributeProto.TENSOR) for a in node.attribute):
            return None
        if node.op_type == "QuantizeLinear":
            if any(a.name == "output_dtype" and a.i for a in node.attribute):
                return None
            if len(node.input) > 2 and node.input[2] in codes:
                codes.update(node.output)
        elif codes.intersection(node.input):
            if not _carries(node, codes):
                return None
            if node.op_type != "DequantizeLinear":
                codes.update(node.output)
    if codes.intersection(v.name for v in (*graph.input, *graph.output)):
        return None
    _name_zero_points(graph, codes)
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.INT8:
            shifted = numpy_helper.to_array(tensor).astype(np.int16) + _OFFSET
            tensor.CopyFrom(numpy_helper.from_array(shifted.astype(np.uint8), tensor.name))
    for value in graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.INT8:
            value.type.tensor_type.elem_type = TensorProto.UINT8
    return result


def _carries(node: onnx.NodeProto, codes: set[str]) -> bool:
    """Whether an operator does with shifted codes what it did with those before."""
    if node.op_type == "DequantizeLinear" or (node.op_type in _KEEP_CODES and node.input[0] in codes):
        return True
    return node.op_type in _COMPARE_CODES and all(not name or name in codes for name in node.input)


def _name_zero_points(graph: onnx.GraphProto, codes: set[str]) -> None:
    """Codes that are read without a zero point have it at 0, which has to be written down before it moves."""
    scales = {t.name: tuple(t.dims) for t in graph.initializer}
    for number, node in enumerate(graph.node):
        if node.op_type != "DequantizeLinear" or node.input[0] not in codes or (len(node.input) > 2 and node.input[2]):
            continue
        name = f"{node.output[0]}_zero_point_{number}"
        zeros = np.zeros(scales.get(node.input[1], ()), np.int8)
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT8, zeros.shape, zeros.tobytes(), raw=True))
        del node.input[2:]
        node.input.append(name)
