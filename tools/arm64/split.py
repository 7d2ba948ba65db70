"""Take a graph apart: show every tensor of it, and make a model of each of its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx
from onnx import AttributeProto, ValueInfoProto, helper

__all__ = ["Piece", "empty_model", "pieces", "showing_all"]


@dataclass(frozen=True, eq=False)
class Piece:
    """A node as a model of its own.

    Attributes:
        name: the node's, or its place where it has none.
        op_type: the node's.
        result: type and shape of its first output, as ``float32[1, 64, 8, 8]``.
        model: the node, the constants it reads, and as inputs and outputs the tensors it reads and writes.
    """

    name: str
    op_type: str
    result: str
    model: onnx.ModelProto


def showing_all(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every tensor that a node computes as an output, after those it has. Types are left to the runtime."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {value.name for value in model.graph.output}
    for name in (name for node in model.graph.node for name in node.output):
        if name and name not in known:
            shown.graph.output.append(ValueInfoProto(name=name))
    return shown


def pieces(model: onnx.ModelProto, tensors: Mapping[str, npt.NDArray[Any]]) -> Iterator[Piece]:
    """Each node as a model, in the graph's order.

    Args:
        model: with constants as initializers.
        tensors: a value of every tensor that the nodes read and write, for types and sizes.
    """
    constants = {initializer.name: initializer for initializer in model.graph.initializer}
    for place, node in enumerate(model.graph.node):
        reads = list(dict.fromkeys(name for name in _reads(node) if name in constants or name in tensors))
        graph = helper.make_graph(
            [node],
            "piece",
            [_value(name, tensors[name]) for name in reads if name not in constants],
            [_value(name, tensors[name]) for name in node.output if name],
            [constants[name] for name in reads if name in constants],
        )
        alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        first = tensors[next(name for name in node.output if name)]
        yield Piece(node.name or f"#{place}", node.op_type, f"{first.dtype}{list(first.shape)}", alone)


def _reads(node: onnx.NodeProto) -> Iterable[str]:
    """Names of what a node reads, within its subgraphs, too."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from _reads(inner)


def _value(name: str, value: npt.NDArray[Any]) -> ValueInfoProto:
    found: ValueInfoProto = helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
    return found


def empty_model() -> onnx.ModelProto:
    """A model that does nothing: float32 ``x`` [1] is its input and its output."""
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    return helper.make_model(helper.make_graph([], "empty", [value], [value]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
