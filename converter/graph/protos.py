"""Graphs as they are in a file: walks through all that a model holds, and names that are still free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto

__all__ = ["freeze_initializers", "graphs_of", "names_in", "nodes_of", "refill", "tensors_of", "unused_name"]


def graphs_of(whole: onnx.ModelProto | GraphProto | FunctionProto) -> Iterator[GraphProto | FunctionProto]:
    """A graph and those inside its nodes; of a model the main graph, the local functions, and those inside their nodes."""
    pending = [whole.graph, *whole.functions] if isinstance(whole, onnx.ModelProto) else [whole]
    while pending:
        graph = pending.pop()
        yield graph
        for attribute in (a for n in graph.node for a in n.attribute):
            pending.extend([attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs)


def nodes_of(whole: onnx.ModelProto | GraphProto | FunctionProto) -> Iterator[NodeProto]:
    """The nodes of all these graphs."""
    for graph in graphs_of(whole):
        yield from graph.node


def tensors_of(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Tensors in initializers and attributes, those of sparse ones included."""
    for graph in graphs_of(model):
        if isinstance(graph, GraphProto):
            yield from graph.initializer
            yield from (t for s in graph.sparse_initializer for t in (s.values, s.indices))
    for attribute in (a for n in nodes_of(model) for a in n.attribute):
        yield from [attribute.t] if attribute.type == AttributeProto.TENSOR else attribute.tensors
        if attribute.type == AttributeProto.SPARSE_TENSOR:
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)


def refill(field: Any, entries: Iterable[Any]) -> None:
    """Let a repeated field of a message hold these entries, its own among them, and no others."""
    kept = list(entries)
    del field[:]
    field.extend(kept)


def names_in(graph: GraphProto) -> set[str]:
    """Names of tensors and nodes, those of inner graphs included."""
    names = {v.name for g in graphs_of(graph) if isinstance(g, GraphProto) for v in (*g.input, *g.output, *g.initializer)}
    return names | {name for n in nodes_of(graph) for name in (n.name, *n.input, *n.output)}


def unused_name(wish: str, taken: set[str]) -> str:
    """The wish, or something like it that is not taken yet; taken from now on."""
    while wish in taken:
        wish += "_"
    taken.add(wish)
    return wish


def freeze_initializers(model: onnx.ModelProto) -> None:
    """Weights that older files list among the inputs are constants to everyone from here on."""
    names = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in names]
    if len(inputs) < len(model.graph.input):
        refill(model.graph.input, inputs)
    if names and model.ir_version:
        model.ir_version = max(model.ir_version, 4)  # of version 3 they would have to be inputs
