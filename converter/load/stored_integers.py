"""Weights stored as integers: constants behind a DequantizeLinear become the float numbers that they stand for."""

from __future__ import annotations

import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from converter.graph.protos import refill
from converter.runtime.session import run_model

__all__ = ["read_stored_integers"]


def read_stored_integers(model: onnx.ModelProto) -> bool:
    """Replace every DequantizeLinear of the main graph that reads nothing but constants by the initializer it gives, in place.

    ONNX Runtime does the same when it loads such a model: only its weights are quantized, it computes in float.

    Returns:
        whether there were any.

    Raises:
        ModelError: ONNX Runtime does not compute it.
    """
    constants = {i.name: i for i in model.graph.initializer}
    constants.update((n.output[0], a.t) for n in model.graph.node if n.op_type == "Constant" for a in n.attribute if _is_tensor(a))
    stored = [n for n in model.graph.node if _reads_constants(n, constants)]
    for node in stored:
        model.graph.initializer.append(_given(model, node, [constants[name] for name in node.input if name]))
        model.graph.node.remove(node)
    if stored:
        read = {name for n in model.graph.node for name in n.input} | {o.name for o in model.graph.output}
        codes = {name for n in stored for name in n.input} - read
        refill(model.graph.initializer, (i for i in model.graph.initializer if i.name not in codes))
    return bool(stored)


def _is_tensor(attribute: AttributeProto) -> bool:
    return bool(attribute.name == "value" and attribute.type == AttributeProto.TENSOR)


def _reads_constants(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    return node.op_type == "DequantizeLinear" and node.domain == "" and all(name in constants for name in node.input if name)


def _given(model: onnx.ModelProto, node: NodeProto, operands: list[TensorProto]) -> TensorProto:
    """What a node makes of constants."""
    output = onnx.ValueInfoProto(name=node.output[0])
    output.type.tensor_type.elem_type = operands[1].data_type  # that of the scale
    graph = helper.make_graph([node], "stored", [], [output], _named(node, operands))
    imports = [o for o in model.opset_import if o.domain == ""]
    (numbers,) = run_model(helper.make_model(graph, opset_imports=imports, ir_version=model.ir_version), {}).values()
    return numpy_helper.from_array(numbers, node.output[0])


def _named(node: NodeProto, operands: list[TensorProto]) -> list[TensorProto]:
    """Copies of constants under the names by which the node reads them; those of Constant nodes have others or none."""
    result = []
    for name, operand in zip((n for n in node.input if n), operands, strict=True):
        copy = TensorProto()
        copy.CopyFrom(operand)
        copy.name = name
        result.append(copy)
    return list({t.name: t for t in result}.values())
