"""Repair: what ONNX Runtime puts up with and other tools do not is put right, as the runtime reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, ValueInfoProto

from converter.errors import ModelError
from converter.graph.protos import freeze_initializers, graphs_of, names_in, nodes_of, refill, unused_name
from converter.graph.shape_inference import infer_shapes
from converter.load.vetting import place_of

__all__ = ["drop_wrong_types", "repair", "sort_nodes", "spell_standard_domain", "state_output_shapes"]

_STANDARD_ALIAS = "ai.onnx"
_GRAPH_NAME = "graph"


def spell_standard_domain(path: Path, model: onnx.ModelProto) -> None:
    """Write the domain of standard operators as an empty name, wherever it is spelled out, and import it once.

    Raises:
        ModelError: the model or a function imports two versions of it.
    """
    for node in nodes_of(model):
        node.domain = "" if node.domain == _STANDARD_ALIAS else node.domain
    for importer in (model, *model.functions):
        seen: dict[str, int] = {}
        for entry in importer.opset_import:
            domain = "" if entry.domain == _STANDARD_ALIAS else entry.domain
            if domain == "" and seen.get("", entry.version) != entry.version:
                what = f"the model imports the standard operators of opset {seen['']} and of opset {entry.version}"
                raise ModelError(what, where=str(path), hint="export the model again")
            seen[domain] = entry.version
        if len(seen) < len(importer.opset_import) or any(o.domain == _STANDARD_ALIAS for o in importer.opset_import):
            refill(importer.opset_import, (onnx.helper.make_opsetid(domain, version) for domain, version in seen.items()))


def repair(path: Path, model: onnx.ModelProto) -> None:
    """Put a model without local functions right, in place.

    Dropped: opset imports that no node uses, initializers that a later one of the same name replaces, weights among the
    inputs, names of nodes that another has too, and sizes below zero. Added: names of graphs, and of outputs that an
    operator has to have. Nodes are sorted.

    Raises:
        ModelError: the graph has a cycle.
    """
    used = {n.domain for n in nodes_of(model)} | {""}
    refill(model.opset_import, (o for o in model.opset_import if o.domain in used))
    for graph in graphs_of(model):
        graph.name = graph.name or _GRAPH_NAME
        _keep_last_initializers(graph)
        _keep_node_names_apart(graph)
    _name_required_outputs(model)
    freeze_initializers(model)
    _open_negative_sizes(model)
    sort_nodes(path, model)


def sort_nodes(path: Path, model: onnx.ModelProto) -> None:
    """Bring nodes behind those whose outputs they read, in every graph; what need not move keeps its order.

    Raises:
        ModelError: nodes wait for each other.
    """
    for graph in graphs_of(model):
        nodes = list(graph.node)
        order = _order(path, nodes)
        if order != list(range(len(nodes))):
            refill(graph.node, (nodes[index] for index in order))


def _order(path: Path, nodes: list[NodeProto]) -> list[int]:
    makers = {output: index for index, node in enumerate(nodes) for output in node.output if output}
    needs = nx.DiGraph((makers[name], index) for index, node in enumerate(nodes) for name in _names_read(node) if name in makers)
    needs.add_nodes_from(range(len(nodes)))
    try:
        return list(nx.lexicographical_topological_sort(needs))
    except nx.NetworkXUnfeasible:
        node = nodes[nx.find_cycle(needs)[0][0]]
        what = f"the graph has a cycle: operator '{node.op_type}' waits for its own output"
        raise ModelError(what, where=place_of(path, node), hint="export the model again") from None


def _names_read(node: NodeProto) -> Iterator[str]:
    """What a node reads, and what graphs inside it read from outside."""
    yield from node.input
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
            inside = {v.name for v in (*graph.input, *graph.initializer)} | {o for n in graph.node for o in n.output}
            yield from (name for n in graph.node for name in _names_read(n) if name not in inside)
            yield from (o.name for o in graph.output if o.name not in inside)


def _keep_last_initializers(graph: GraphProto | FunctionProto) -> None:
    if isinstance(graph, GraphProto):
        last = {i.name: i for i in graph.initializer}
        if len(last) < len(graph.initializer):
            refill(graph.initializer, last.values())


def _keep_node_names_apart(graph: GraphProto | FunctionProto) -> None:
    seen: set[str] = set()
    for node in graph.node:
        if node.name in seen:
            node.name = ""
        seen.add(node.name)


def _name_required_outputs(model: onnx.ModelProto) -> None:
    """Name outputs that are not optional: the runtime writes them without looking whether they are wanted."""
    version = next(o.version for o in model.opset_import if o.domain == "")
    taken = names_in(model.graph)
    for node in nodes_of(model):
        if "" not in node.output or not onnx.defs.has(node.op_type, max_inclusive_version=version):
            continue
        declared = onnx.defs.get_schema(node.op_type, max_inclusive_version=version).outputs
        for place, name in enumerate(node.output):
            optional = onnx.defs.OpSchema.FormalParameterOption.Optional
            if not name and declared and declared[min(place, len(declared) - 1)].option != optional:
                node.output[place] = unused_name(f"{next(o for o in (*node.output, node.op_type) if o)}_{place}", taken)


def _open_negative_sizes(model: onnx.ModelProto) -> None:
    """Sizes below zero stand for any size, with the runtime too."""
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_value < 0:
                size.ClearField("dim_value")


def state_output_shapes(model: onnx.ModelProto) -> None:
    """Give outputs that state no shape the one that inference finds, as the runtime does, in place.

    What inference makes up names for stays nameless. An output of which not even the rank can be known is left as it is.

    Raises:
        ModelError: shapes cannot be inferred.
    """
    shapeless = {v.name: v for v in model.graph.output if v.type.HasField("tensor_type") and not v.type.tensor_type.HasField("shape")}
    if not shapeless:
        return
    stated = {v.name: v for v in model.graph.value_info}
    refill(model.graph.value_info, [])  # may be wrong
    inferred = {v.name: v.type.tensor_type for v in infer_shapes(model).graph.output}
    refill(model.graph.value_info, stated.values())
    symbols = {d.dim_param for v in model.graph.input for d in v.type.tensor_type.shape.dim}
    for name, value in shapeless.items():
        if inferred[name].HasField("shape"):
            value.type.tensor_type.shape.CopyFrom(inferred[name].shape)
            for size in value.type.tensor_type.shape.dim:
                if size.HasField("dim_param") and size.dim_param not in symbols:
                    size.ClearField("dim_param")


def drop_wrong_types(model: onnx.ModelProto) -> None:
    """Drop what a valid model states about inner tensors and is not so, in place; inference finds it out again."""
    for inner in graphs_of(model):
        if isinstance(inner, GraphProto):
            # inputs, outputs and constants have types of their own
            known = {v.name for v in (*inner.input, *inner.output, *inner.initializer)}
            made = {o for n in inner.node for o in n.output if o} - known
            refill(inner.value_info, {v.name: v for v in inner.value_info if v.name in made and _is_plain_tensor(v)}.values())
    stated = {v.name: v for v in model.graph.value_info}
    if stated:
        refill(model.graph.value_info, [])
        inferred = {v.name: v for v in infer_shapes(model).graph.value_info}
        refill(model.graph.value_info, (v for n, v in stated.items() if n not in inferred or _agree(v, inferred[n])))


def _is_plain_tensor(value: ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    known = tensor.elem_type in TensorProto.DataType.values() and tensor.elem_type != TensorProto.UNDEFINED
    return value.type.HasField("tensor_type") and known and all(d.dim_value >= 0 for d in tensor.shape.dim)


def _agree(stated: ValueInfoProto, inferred: ValueInfoProto) -> bool:
    one, other = stated.type.tensor_type, inferred.type.tensor_type
    if not inferred.type.HasField("tensor_type") or one.elem_type != other.elem_type:
        return False
    if not one.HasField("shape") or not other.HasField("shape"):
        return True
    if len(one.shape.dim) != len(other.shape.dim):
        return False
    pairs = zip(one.shape.dim, other.shape.dim, strict=True)
    return all(a.dim_value == b.dim_value for a, b in pairs if a.HasField("dim_value") and b.HasField("dim_value"))
