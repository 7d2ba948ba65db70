"""Where the bytes of an emitted file are: in weights of 8 bits, in float numbers, in other numbers, and in the graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from converter.graph.weight_files import model_bytes
from converter.plan.records import Plan

__all__ = ["FileBytes", "FloatConstant", "bytes_of"]

_MOST_LISTED = 5

_CODES = frozenset([onnx.TensorProto.INT8, onnx.TensorProto.UINT8])
_FLOATS = frozenset([onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE])
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class FloatConstant:
    """A constant that is stored in float.

    Attributes:
        name: in the file.
        bytes: of its numbers.
        operator: the first that reads it.
        op_type: of that.
        reason: why that operator is computed in float; empty if nothing was planned for it.
    """

    name: str
    bytes: int
    operator: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class FileBytes:
    """The bytes of a file.

    Attributes:
        in_8_bits: of constants with 8 bits each, weights nearly all of them.
        in_float: of constants in float, scales left out.
        in_others: of all other constants: scales, and biases in 32 bits.
        graph: nodes, names, and the types and shapes of tensors.
        stored: how many weights of layers that are computed in float are among the constants with 8 bits.
        to_save: how many fewer the file would have with ``--prefer size``.
        largest: of the constants in float, the largest first.
    """

    in_8_bits: int
    in_float: int
    in_others: int
    graph: int
    stored: int
    to_save: int
    largest: tuple[FloatConstant, ...]

    @property
    def total(self) -> int:
        """Of the whole file."""
        return self.in_8_bits + self.in_float + self.in_others + self.graph


def bytes_of(model: onnx.ModelProto, plan: Plan, to_save: int = 0) -> FileBytes:
    """Add up what each constant of an emitted model takes.

    Args:
        plan: that it was emitted from, for the reasons.
        to_save: what :func:`converter.planning.stored_weights.bytes_to_save` says.
    """
    readers = _readers(model)
    scales = {node.input[1] for node in model.graph.node if node.op_type in _CONVERSIONS}
    cast = {node.output[0] for node in model.graph.node if node.op_type == "Cast"}
    scales |= {node.input[1] for node in model.graph.node if node.op_type == "Mul" and node.input[0] in cast}
    sizes, kinds = _constants(model)
    in_float = {name: size for name, size in sizes.items() if kinds[name] in _FLOATS and name not in scales}
    in_8_bits = sum(size for name, size in sizes.items() if kinds[name] in _CODES)
    found = [_constant(name, size, readers.get(name), plan) for name, size in in_float.items()]
    found.sort(key=lambda each: (-each.bytes, each.name))
    others = sum(sizes.values()) - in_8_bits - sum(in_float.values())
    graph = model_bytes(model) - sum(sizes.values())
    return FileBytes(in_8_bits, sum(in_float.values()), others, graph, len(plan.stored), to_save, tuple(found[:_MOST_LISTED]))


def _readers(model: onnx.ModelProto) -> Mapping[str, onnx.NodeProto]:
    """The first node that reads a value, by its name."""
    return {value: node for node in reversed(model.graph.node) for value in node.input}


def _constants(model: onnx.ModelProto) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes and element types of the tensors in a file, by name."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    constants = ((node.output[0], node.attribute) for node in model.graph.node if node.op_type == "Constant")
    tensors |= {name: each.t for name, attributes in constants for each in attributes if each.name == "value"}
    kinds = {name: tensor.data_type for name, tensor in tensors.items()}
    return {name: _size(tensor) for name, tensor in tensors.items()}, kinds


def _size(tensor: onnx.TensorProto) -> int:
    elements: int = math.prod(tensor.dims)
    return elements * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _constant(name: str, size: int, reader: onnx.NodeProto | None, plan: Plan) -> FloatConstant:
    op = plan.ops.get(reader.name) if reader is not None else None
    operator, op_type = ("", "") if reader is None else (reader.name, reader.op_type)
    return FloatConstant(name, size, operator, op_type, "" if op is None else op.reason)
