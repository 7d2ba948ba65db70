"""Half precision: a model with float16 or bfloat16 numbers becomes one that computes in float32, with the same interface."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, TensorProto, ValueInfoProto, helper, numpy_helper

from converter.graph.protos import graphs_of, names_in, nodes_of, refill, tensors_of, unused_name
from converter.graph.weight_files import array_of

__all__ = ["widen_halves"]

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_TYPE_ATTRIBUTES = ("dtype", "output_datatype", "softmax_precision", "stash_type", "to")
"""Attributes that hold the number of an element type. Not those of BitCast, which is about bits."""


def widen_halves(model: onnx.ModelProto) -> bool:
    """Make float32 of all half precision numbers of a model without local functions, in place.

    Weights, constants and the types that operators are told become float32. Inputs and outputs keep their types: a Cast
    stands behind such an input and in front of such an output.

    Returns:
        whether there were any.
    """
    tensors = [t for t in tensors_of(model) if t.data_type in _HALVES]
    for tensor in tensors:
        tensor.CopyFrom(numpy_helper.from_array(array_of(tensor).astype(np.float32), tensor.name))
    attributes = [a for n in nodes_of(model) if n.op_type != "BitCast" for a in n.attribute if _names_half(a)]
    for attribute in attributes:
        attribute.i = TensorProto.FLOAT
    values = [v for g in graphs_of(model) if isinstance(g, GraphProto) for v in _inner_values(g, model.graph) if _is_half(v)]
    for value in values:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    taken = names_in(model.graph)
    borders = _widen_inputs(model.graph, taken) + _widen_outputs(model.graph, taken)
    return bool(tensors or attributes or values or borders)


def _names_half(attribute: AttributeProto) -> bool:
    return attribute.name in _TYPE_ATTRIBUTES and attribute.type == AttributeProto.INT and attribute.i in _HALVES


def _is_half(value: ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type in _HALVES


def _inner_values(graph: GraphProto, main: GraphProto) -> list[ValueInfoProto]:
    return [*graph.value_info, *([] if graph is main else (*graph.input, *graph.output))]


def _widen_inputs(graph: GraphProto, taken: set[str]) -> int:
    read = {name for n in nodes_of(graph) for name in n.input}
    halves = [v.name for v in graph.input if _is_half(v) and v.name in read]
    casts = []
    for name in halves:
        wide = unused_name(f"{name}_float32", taken)
        _rename(graph, name, wide)
        casts.append(helper.make_node("Cast", [name], [wide], name=wide, to=TensorProto.FLOAT))
    refill(graph.node, [*casts, *graph.node])
    return len(casts)


def _widen_outputs(graph: GraphProto, taken: set[str]) -> int:
    given = {v.name for v in graph.input}
    halves = {v.name: v.type.tensor_type.elem_type for v in graph.output if _is_half(v) and v.name not in given}
    for name, kind in halves.items():
        wide = unused_name(f"{name}_float32", taken)
        _rename(graph, name, wide)
        graph.node.append(helper.make_node("Cast", [wide], [name], name=unused_name(f"{name}_half", taken), to=kind))
    return len(halves)


def _rename(graph: GraphProto, name: str, new: str) -> None:
    """Call a tensor by another name, except where it is an input or output of the model."""
    for tensor in graph.initializer:
        tensor.name = new if tensor.name == name else tensor.name
    for value in graph.value_info:
        value.name = new if value.name == name else value.name
    for node in nodes_of(graph):
        for names in (node.input, node.output):
            for place in (p for p, n in enumerate(names) if n == name):
                names[place] = new
    for inner in graphs_of(graph):
        if inner is not graph and isinstance(inner, GraphProto):
            for value in inner.output:
                value.name = new if value.name == name else value.name
