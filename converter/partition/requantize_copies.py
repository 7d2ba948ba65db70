"""Forks: give the layers that read a tensor a narrower copy of it, and everyone else the tensor as it is.

With fewer than 8 bits for what enters a layer, a residual stream has two kinds of readers: the layers, which want the
narrow grid, and the Add that carries the stream on, which would lose what the narrow grid drops. An ``Identity`` between
the tensor and its layers makes two tensors of one, each with a grid of its own. Nothing is computed by it: in the emitted
model it is a DQ and a Q, or nothing at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir

from converter.graph.builder import GraphBuilder
from converter.graph.marks import AVERAGE
from converter.graph.operator_sets import LAYERS, READS_SHAPE_ONLY
from converter.graph.queries import constant, consumers, is_float, is_graph_output
from converter.partition.integer_forms import passes_codes

__all__ = ["add_requantize_copies"]


def add_requantize_copies(model: ir.Model, excluded: Collection[str] = ()) -> list[str]:
    """Copy each tensor that enters layers and something else, in place, so that the layers read the copy.

    A tensor enters a layer directly or through operators that only pass its codes on. All layers that a tensor enters
    share one copy, and so do movements that lead to layers only.

    Args:
        model: canonical float model.
        excluded: names of nodes that stay float, and so count as something else.

    Returns:
        names of the copies, ``<tensor>_entering``, in graph order.
    """
    graph, builder = model.graph, GraphBuilder(model.graph)
    # whether layers, and nothing else, read a tensor
    layer_inputs: dict[ir.Value, bool] = {}
    copies: list[str] = []
    for node in reversed(list(graph)):
        made = [o for o in node.outputs if is_float(o) and constant(o) is None]
        mixed = [o for o in made if _follow(o, excluded, layer_inputs)]
        if passes_codes(node) and not all(layer_inputs[o] for o in made):
            # the codes that are passed on keep 8 bits for one output's sake, so each output for layers is copied
            mixed += [o for o in made if layer_inputs[o]]
        copies += [_copy(builder, o, excluded, layer_inputs) for o in reversed(mixed)]
    mixed = [v for v in graph.inputs if is_float(v) and _follow(v, excluded, layer_inputs)]
    copies += [_copy(builder, v, excluded, layer_inputs) for v in reversed(mixed)]
    return copies[::-1]


def _follow(value: ir.Value, excluded: Collection[str], layer_inputs: dict[ir.Value, bool]) -> bool:
    """Record whether only layers read a value; true if layers and others do."""
    wants = [_wants_narrow(node, excluded, layer_inputs) for node, _ in _readers(value)]
    wants += [False] * is_graph_output(value)
    layer_inputs[value] = bool(wants) and all(wants)
    return any(wants) and not all(wants)


def _readers(value: ir.Value) -> Sequence[tuple[ir.Node, int]]:
    return [(node, index) for node, index in consumers(value) if node.op_type not in READS_SHAPE_ONLY]


def _wants_narrow(node: ir.Node, excluded: Collection[str], layer_inputs: Mapping[ir.Value, bool]) -> bool:
    if str(node.name) in excluded:
        return False
    averages = AVERAGE in node.metadata_props
    return (node.op_type in LAYERS and not averages) or (passes_codes(node) and all(layer_inputs[o] for o in node.outputs))


def _copy(builder: GraphBuilder, value: ir.Value, excluded: Collection[str], layer_inputs: dict[ir.Value, bool]) -> str:
    name, producer = builder.free(f"{value.name}_entering"), value.producer()
    first = builder.graph[0] if producer is None else None
    output = builder.add("Identity", [value], name=f"{name}_Identity", output=name, like=value, before=first, after=producer)
    for node, index in _readers(value):
        if node is not output.producer() and _wants_narrow(node, excluded, layer_inputs):
            node.replace_input_with(index, output)
    layer_inputs[value], layer_inputs[output] = False, True
    return name
