"""Outputs that need no computing: constants, inputs passed through, and outputs listed twice.

They are part of the model's interface, but nothing that could be planned, simulated or compared with a plan. So the
canonical model has only outputs that are computed, each once, and emission gives the model its whole list again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from converter.errors import ModelError
from converter.graph.builder import GraphBuilder
from converter.graph.protos import refill

__all__ = ["distinct_outputs", "restore_outputs", "set_outputs_aside"]

Array = npt.NDArray[Any]

_RANDOM = frozenset(["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"])


def distinct_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every output listed once; a copy if one is listed twice."""
    first: dict[str, onnx.ValueInfoProto] = {}
    for output in model.graph.output:
        first.setdefault(output.name, output)
    if len(first) == len(model.graph.output):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    refill(result.graph.output, first.values())
    return result


def set_outputs_aside(model: ir.Model, values: Mapping[str, Array]) -> dict[str, Array]:
    """Take outputs that no input reaches, and inputs that are outputs, from the list of outputs.

    Args:
        model: canonical float model, changed in place.
        values: what the original model gives on some sample, by output.

    Returns:
        the constant outputs by name, as the original gives them.

    Raises:
        ModelError: no output is left.
    """
    computed = _computed(model.graph)
    constants = {str(v.name): values[str(v.name)] for v in model.graph.outputs if v not in computed and not v.is_graph_input()}
    model.graph.outputs[:] = [v for v in model.graph.outputs if v in computed]
    if not model.graph.outputs:
        raise ModelError(
            "no output depends on what the model computes from its inputs: all are constants or inputs passed through",
            where=f"output '{next(iter(constants), model.graph.name)}'",
            hint="there is nothing to quantize; check the export",
        )
    return constants


def restore_outputs(emitted: ir.Model, source: onnx.ModelProto, constants: Mapping[str, Array]) -> None:
    """Give an emitted model, in place, the list of outputs of its source.

    Args:
        emitted: with the computed outputs only.
        constants: what :func:`set_outputs_aside` took.
    """
    graph, builder = emitted.graph, GraphBuilder(emitted.graph)
    found = {str(v.name): v for v in (*graph.inputs, *graph.outputs)}
    declared = {o.name: ir.serde.deserialize_value_info_proto(o, None) for o in source.graph.output}
    for name, array in constants.items():
        found[name] = _constant(builder, name, array)
        found[name].shape = declared[name].shape
    graph.outputs[:] = [found[o.name] for o in source.graph.output]


def _computed(graph: ir.Graph) -> set[ir.Value]:
    """Tensors that some input reaches, or chance; inputs themselves are none of them."""
    given, result = set(graph.inputs), set[ir.Value]()
    for node in graph:
        if node.op_type in _RANDOM or any(v in result or v in given for v in node.inputs):
            result.update(node.outputs)
    return result


def _constant(builder: GraphBuilder, name: str, array: Array) -> ir.Value:
    """The initializer of that name and value; another tensor of that name makes way."""
    graph = builder.graph
    for value in [value for node in graph for value in node.outputs if value.name == name]:
        builder.rename(value, builder.free(f"{name}_inside"))
    present = graph.initializers.get(name)
    if present is not None and present.const_value is not None:
        held = present.const_value.numpy()
        if held.dtype == array.dtype and np.array_equal(held, array, equal_nan=held.dtype.kind == "f"):
            return present
        graph.initializers.pop(name)
        builder.rename(present, builder.free(f"{name}_inside"))
        graph.register_initializer(present)
    return builder.initializer(name, array)
