"""The few edits that every graph rewrite is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

__all__ = ["add_initializer", "insert_before", "remove_dead", "replace", "unique_name"]


def unique_name(graph: ir.Graph, wish: str) -> str:
    """``wish``, or ``wish_2``, ``wish_3``...: a name that no value, node or initializer of the graph has yet."""
    taken = set(graph.initializers) | {v.name for v in graph.inputs}
    for node in graph:
        taken.add(node.name)
        taken.update(v.name for v in node.outputs)
    if wish not in taken:
        return wish
    number = 2
    while f"{wish}_{number}" in taken:
        number += 1
    return f"{wish}_{number}"


def add_initializer(graph: ir.Graph, wish: str, array: np.ndarray[Any, Any]) -> ir.Value:
    """Register a new constant, named after ``wish``."""
    name = unique_name(graph, wish)
    tensor = ir.tensor(np.array(array, order="C"), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def insert_before(
    anchor: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: dict[str, Any] | None = None,
    *,
    name: str,
    like: ir.Value | None = None,
    shape: ir.Shape | None = None,
) -> ir.Value:
    """Add a node in front of ``anchor`` and return its one output, typed like ``like`` (float32 by default)."""
    graph = anchor.graph
    assert isinstance(graph, ir.Graph)
    node = ir.node(op_type, list(inputs), attributes or {}, name=unique_name(graph, name))
    (output,) = node.outputs
    output.name = unique_name(graph, f"{name}_output")
    output.type = like.type if like is not None else ir.TensorType(ir.DataType.FLOAT)
    output.shape = shape if shape is not None else (like.shape if like is not None else None)
    graph.insert_before(anchor, [node])
    return output


def replace(old: ir.Value, new: ir.Value, dead: Iterable[ir.Node]) -> None:
    """Let ``new`` take the place, the name and the consumers of ``old``, and remove the nodes that made ``old``.

    The tensor keeps its name, so that names in the canonical graph are names of the input file.
    """
    nodes = list(dict.fromkeys(dead))
    graph = nodes[0].graph
    assert isinstance(graph, ir.Graph)
    name = old.name
    new.shape = new.shape if old.shape is None else old.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name = unique_name(graph, f"{name}_replaced")
    graph.remove(nodes, safe=True)
    new.name = name


def remove_dead(model: ir.Model) -> None:
    """Drop nodes that nothing reads and initializers that no node reads."""
    common_passes.RemoveUnusedNodesPass()(model)
