"""Structure from the graph: layers, and the bridge blocks in which a feature map becomes tokens and tokens a map.

What is called a bridge block is the part of a hybrid network where the spatial representation turns into tokens or
back (Q-HyViT, arXiv 2303.12557, section 3.1). Here it is found by following the places of the feature maps
(:mod:`converter.sensitivity.token_positions`): an operator belongs to a bridge if it reads or makes a tensor that holds places of a map in
another arrangement than a map does.

Operators of that kind that hang together make up a region. In a region where tokens that come from elsewhere meet the
map in a product, map and tokens cross: each crossing is a block. Elsewhere all regions that give back maps of one size
are one block, since they follow each other in one stage; and one that gives no map back is a block of its own, which may
be a whole vision transformer. The layers in front of a region belong to the block, and what leads from it to where its
result meets the map that went past it. Blocks that would share operators are one.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import networkx
import onnx_ir as ir

from converter.graph.operator_sets import LAYERS
from converter.graph.queries import constant, consumers, is_float
from converter.sensitivity.token_positions import Places, is_map, places_of

__all__ = ["Block", "Kind", "Layer", "Structure", "find_structure"]

Kind = Literal["round trip", "one way", "map to tokens", "tokens to map"]
"""Round trip: a map becomes tokens and a map again. One way: it stays tokens. The others are crossings."""

_POINTWISE = frozenset(["Mul", "Sigmoid", "Relu", "Clip", "HardSwish", "Gelu", "LeakyRelu", "Identity", "Add", "HardSigmoid"])


@dataclass(frozen=True)
class Layer:
    """An operator that multiplies matrices.

    Attributes:
        name: of the operator.
        op_type: ONNX operator.
        product: both operands are computed.
        block: index of the bridge block it belongs to; None outside.
    """

    name: str
    op_type: str
    product: bool
    block: int | None


@dataclass(frozen=True)
class Block:
    """A bridge block: a part of the graph that no path leaves and enters again.

    Attributes:
        kind: see :data:`Kind`.
        nodes: names of its operators, in graph order.
        inputs: computed tensors that it reads from outside.
        outputs: tensors that others read, or model outputs: where its effect is judged.
        size: height and width of the maps that it gives back; None if it gives none.
    """

    kind: Kind
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    size: tuple[int, int] | None


@dataclass(frozen=True)
class Structure:
    """What was found, in graph order."""

    blocks: tuple[Block, ...]
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class _Region:
    """Operators that hang together by rearranged tensors.

    Attributes:
        nodes: the operators.
        crossing: map and tokens from elsewhere meet.
        size: of the map that goes past it, or that it gives back; None if it gives none.
        join: where its result is added to, or joined with, what went past it.
    """

    nodes: frozenset[ir.Node]
    crossing: bool
    size: tuple[int, int] | None
    join: ir.Node | None


def find_structure(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> Structure:
    """Find bridge blocks and layers.

    Args:
        model: canonical float model.
        shapes: of its float tensors by name, as observed on one sample.
    """
    places = places_of(model, shapes)
    regrouped = {name for name, held in places.items() if held and not is_map(held, shapes.get(name, ()))}
    parts = [nodes for nodes in _connected(model, regrouped) if any(_is_layer(n) for n in nodes)]
    regions = [_region(nodes, model, places, regrouped, shapes) for nodes in parts]
    order = {node: i for i, node in enumerate(model.graph)}
    apart = _apart(_grouped(regions), model, regrouped)
    found = [_block(group, sorted(nodes, key=order.__getitem__)) for group, nodes in apart]
    position = {str(node.name): i for node, i in order.items()}
    blocks = tuple(sorted(found, key=lambda b: position[b.nodes[0]]))
    inside = {name: i for i, block in enumerate(blocks) for name in block.nodes}
    layers = [Layer(str(n.name), n.op_type, constant(n.inputs[1]) is None, inside.get(str(n.name))) for n in model.graph if _is_layer(n)]
    return Structure(blocks, tuple(layers))


def _is_layer(node: ir.Node) -> bool:
    return node.op_type in LAYERS and constant(node.inputs[0]) is None


def _names(values: Iterable[ir.Value | None]) -> list[str]:
    return [str(v.name) for v in values if v is not None and is_float(v)]


def _connected(model: ir.Model, regrouped: Collection[str]) -> list[frozenset[ir.Node]]:
    touched = networkx.Graph()
    members = [n for n in model.graph if not set(_names([*n.inputs, *n.outputs])).isdisjoint(regrouped)]
    touched.add_nodes_from(members)
    known = set(members)
    for node in members:
        for value in node.outputs:
            touched.add_edges_from((node, reader) for reader, _ in consumers(value) if reader in known and str(value.name) in regrouped)
    # what is summed over all places, such as the context of linear attention, goes back to the region that it came from
    for node in members:
        for value in node.outputs:
            if str(value.name) not in regrouped:
                readers = [reader for reader, _ in consumers(value) if reader in known and reader.op_type != "MatMul"]
                touched.add_edges_from((node, reader) for reader in readers if is_float(value) and not _is_layer(node))
    return [frozenset(part) for part in networkx.connected_components(touched)]


def _region(
    nodes: frozenset[ir.Node],
    model: ir.Model,
    places: Mapping[str, Places],
    regrouped: Collection[str],
    shapes: Mapping[str, Sequence[int]],
) -> _Region:
    back = any(n in places and places[n] and n not in regrouped for node in nodes for n in _names(node.outputs))
    order = list(model.graph)
    behind, before = nodes | _behind(nodes, order), _before(nodes, order)
    crossing = any(_crosses(node, places, behind, before) for node in nodes if node.op_type == "MatMul")
    size, join = _join(nodes, model, shapes) if back else (None, None)
    return _Region(nodes, crossing, size, join)


def _crosses(node: ir.Node, places: Mapping[str, Places], behind: Collection[ir.Node], before: Collection[ir.Node]) -> bool:
    """A product in which places meet numbers that hold none, or in which they are summed over.

    Not where those numbers were summed over in the region itself, as in linear attention.

    Args:
        node: the product.
        places: of all tensors.
        behind: the operators that the region leads to, and its own.
        before: the operators that lead to the region.
    """
    computed = [v for v in node.inputs if v is not None and constant(v) is None]
    if not any(places.get(str(v.name)) for v in computed):
        return False
    foreign = any(not places.get(str(v.name)) and v.producer() not in behind for v in computed)
    return foreign or (not places.get(str(node.outputs[0].name)) and node not in before)


def _join(nodes: frozenset[ir.Node], model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> tuple[tuple[int, int] | None, ir.Node | None]:
    """Where a region's result meets a map that has gone past it, and the size of that map; else the size of its own result.

    An attention may work on a smaller map than the stage it stands in.
    """
    behind = {*nodes, *_in_front(nodes)}
    given: tuple[int, int] | None = None
    for node in model.graph:
        computed = [v for v in node.inputs if v is not None and is_float(v) and constant(v) is None]
        from_here = [v for v in computed if v.producer() in behind]
        shape = shapes.get(str(node.outputs[0].name), ())
        if node in nodes and len(shape) == 4:
            given = (int(shape[2]), int(shape[3]))
        if node in behind or not from_here:
            continue
        if len(from_here) < len(computed) and node.op_type in ("Add", "Concat") and len(shape) == 4:
            return (int(shape[2]), int(shape[3])), node
        behind.add(node)
    return given, None


def _grouped(regions: Sequence[_Region]) -> list[list[_Region]]:
    groups: dict[object, list[_Region]] = {}
    for i, region in enumerate(regions):
        alone = region.crossing or region.size is None
        groups.setdefault(i if alone else region.size, []).append(region)
    return list(groups.values())


def _apart(groups: list[list[_Region]], model: ir.Model, regrouped: Collection[str]) -> list[tuple[list[_Region], set[ir.Node]]]:
    """Groups with the operators of their blocks; those that would share operators are one group, as of streams that exchange tokens.

    A layer between two blocks belongs to the one behind it.
    """
    while True:
        whole = _operators(groups, list(model.graph), regrouped)
        shared = networkx.Graph()
        shared.add_nodes_from(range(len(groups)))
        shared.add_edges_from((i, j) for i, j in itertools.combinations(range(len(groups)), 2) if whole[i] & whole[j])
        joined = [[region for i in sorted(part) for region in groups[i]] for part in networkx.connected_components(shared)]
        if len(joined) == len(groups):
            return list(zip(groups, whole, strict=True))
        groups = joined


def _operators(groups: Sequence[Sequence[_Region]], order: Sequence[ir.Node], regrouped: Collection[str]) -> list[set[ir.Node]]:
    inner = [{n for region in group for n in region.nodes} for group in groups]
    joins = [{region.join for region in group if region.join is not None} for group in groups]
    cores = [_convex(nodes | _in_front(nodes) | join, order) for nodes, join in zip(inner, joins, strict=True)]
    taken = [{n for other in cores if other is not core for n in other} for core in cores]
    return [_convex(c | (_readers(i, regrouped) - t), order) for i, c, t in zip(inner, cores, taken, strict=True)]


def _block(group: Sequence[_Region], ordered: Sequence[ir.Node]) -> Block:
    nodes = set(ordered)
    made = {str(v.name) for n in ordered for v in n.outputs}
    inputs = dict.fromkeys(
        str(v.name) for n in ordered for v in n.inputs if v is not None and is_float(v) and constant(v) is None and str(v.name) not in made
    )
    outputs = [
        str(v.name)
        for n in ordered
        for v in n.outputs
        if is_float(v) and (v.is_graph_output() or any(r not in nodes for r, _ in consumers(v)))
    ]
    size = next((region.size for region in group if region.size is not None), None)
    kind: Kind = "one way" if size is None else "round trip"
    if any(region.crossing for region in group):
        kind = "map to tokens" if size is None else "tokens to map"
    return Block(kind, tuple(str(n.name) for n in ordered), tuple(inputs), tuple(outputs), size)


def _in_front(nodes: Collection[ir.Node]) -> set[ir.Node]:
    """The layers whose output, perhaps through pointwise operators, enters."""
    found: set[ir.Node] = set()
    for node in nodes:
        for value in node.inputs:
            path: list[ir.Node] = []
            producer = value.producer() if value is not None and is_float(value) else None
            while producer is not None and producer not in nodes:
                path.append(producer)
                if _is_layer(producer):
                    found.update(path)
                    break
                operands = [v for v in producer.inputs if v is not None and is_float(v) and constant(v) is None]
                if producer.op_type not in _POINTWISE or not operands or producer.op_type == "Add":
                    break
                producer = operands[0].producer()
    return found


def _readers(nodes: Collection[ir.Node], regrouped: Collection[str]) -> set[ir.Node]:
    """The layers that read a map that is given back."""
    given = [v for n in nodes for v in n.outputs if str(v.name) not in regrouped]
    return {reader for value in given for reader, _ in consumers(value) if reader not in nodes and _is_layer(reader)}


def _convex(nodes: set[ir.Node], order: Sequence[ir.Node]) -> set[ir.Node]:
    """With everything that lies on a path from one to another."""
    return nodes | (_behind(nodes, order) & _before(nodes, order))


def _behind(nodes: Collection[ir.Node], order: Sequence[ir.Node]) -> set[ir.Node]:
    """The operators to which a path leads from one of the nodes."""
    found: set[ir.Node] = set()
    for node in order:
        if any(v is not None and (v.producer() in nodes or v.producer() in found) for v in node.inputs):
            found.add(node)
    return found


def _before(nodes: Collection[ir.Node], order: Sequence[ir.Node]) -> set[ir.Node]:
    """The operators from which a path leads to one of the nodes."""
    found: set[ir.Node] = set()
    for node in reversed(order):
        if any(reader in nodes or reader in found for value in node.outputs for reader, _ in consumers(value)):
            found.add(node)
    return found
