"""Origins: which nodes of the input file each node of the canonical graph stands for."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx
import onnx_ir as ir

from converter.graph.operator_sets import MOVEMENT, PRODUCTS, READS_SHAPE_ONLY
from converter.graph.queries import constant

__all__ = ["name_after_source", "source_nodes"]

_FOLDABLE = ("Add", "Sub", "Mul", "Div", "BatchNormalization")

Nodes = dict[str, onnx.NodeProto]
"""Nodes of the input file by their first output."""


def source_nodes(source: onnx.ModelProto, canonical: ir.Model) -> dict[str, tuple[onnx.NodeProto, ...]]:
    """The nodes of the input file that each canonical node stands for, by canonical node name.

    Rewrites keep most names of tensors, so a canonical node stands for what lies in the input file between the tensors it
    writes and the nearest tensors that the canonical graph computes too. Three refinements:

    1. Canonical nodes that exchange tensors unknown to the input file came from one rewrite and share its region.
    2. In a region with a product, products stand for products and what was folded into them, movements for movements, and
       anything else for the rest.
    3. A factor, offset or BatchNormalization that has disappeared between a product and its unchanged reader was folded
       into the product.
    """
    makers = {output: node for node in source.graph.node for output in node.output}
    computed = {str(v.name) for v in canonical.graph.inputs}
    computed |= {str(o.name) for n in canonical.graph for o in n.outputs if constant(o) is None}
    groups = _groups(canonical, makers.keys() | {i.name for i in source.graph.input})
    regions = [_region(group, makers, computed) for group in groups]
    written_by = {str(o.name): place for place, group in enumerate(groups) for node in group for o in node.outputs}
    foldable = _foldable(source)
    for group, region in zip(groups, regions, strict=True):
        _move_folded(group, region, groups, regions, written_by, foldable)
    result: dict[str, tuple[onnx.NodeProto, ...]] = {}
    for group, region in zip(groups, regions, strict=True):
        for node in group:
            result[str(node.name)] = _share(node, group, region, foldable)
    return result


def _groups(canonical: ir.Model, known: Iterable[str]) -> list[list[ir.Node]]:
    """Computing nodes, those together that exchange tensors whose names are not known."""
    names = set(known)
    group_of: dict[ir.Node, list[ir.Node]] = {}
    for node in canonical.graph:
        if constant(node.outputs[0]) is not None:
            continue
        group_of[node] = [node]
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if value is None or producer is None or producer not in group_of or str(value.name) in names:
                continue
            mine, theirs = group_of[node], group_of[producer]
            if mine is not theirs:
                theirs.extend(mine)
                group_of.update(dict.fromkeys(mine, theirs))
    return list({id(group): group for group in group_of.values()}.values())


def _region(group: list[ir.Node], makers: Nodes, computed: Collection[str]) -> Nodes:
    written = [str(o.name) for node in group for o in node.outputs if str(o.name) in makers]
    found: Nodes = {}
    pending = list(written)
    while pending:
        tensor = pending.pop()
        maker = makers.get(tensor)
        if maker is None or maker.output[0] in found or (tensor in computed and tensor not in written):
            continue
        found[maker.output[0]] = maker
        if maker.op_type not in READS_SHAPE_ONLY:
            pending.extend(maker.input)
    return found


def _foldable(source: onnx.ModelProto) -> dict[str, str]:
    """First outputs of nodes that add or multiply constants, with the one tensor that they compute from."""
    constants = {i.name for i in source.graph.initializer}
    result: dict[str, str] = {}
    for node in source.graph.node:
        reads = [name for name in node.input if name and name not in constants]
        if not reads:
            constants.update(node.output)
        elif len(reads) == 1 and node.op_type in _FOLDABLE:
            result[node.output[0]] = reads[0]
    return result


def _move_folded(
    group: list[ir.Node],
    region: Nodes,
    groups: list[list[ir.Node]],
    regions: list[Nodes],
    written_by: dict[str, int],
    foldable: dict[str, str],
) -> None:
    types, kept = {n.op_type for n in group}, {str(o.name) for n in group for o in n.outputs}
    if types & PRODUCTS or not types & {n.op_type for n in region.values()}:
        return
    for output in [o for o in region if o in foldable and o not in kept]:
        before = foldable[output]
        while before in foldable and before in region:
            before = foldable[before]
        place = written_by.get(before)
        if place is not None and any(n.op_type in PRODUCTS for n in groups[place]):
            regions[place][output] = region.pop(output)


def _share(node: ir.Node, group: list[ir.Node], region: Nodes, foldable: dict[str, str]) -> tuple[onnx.NodeProto, ...]:
    def product(origin: onnx.NodeProto) -> bool:
        return origin.op_type in PRODUCTS or origin.output[0] in foldable

    def movement(origin: onnx.NodeProto) -> bool:
        return origin.op_type in MOVEMENT or origin.op_type in READS_SHAPE_ONLY

    if not any(n.op_type in PRODUCTS for n in group):
        return tuple(region.values())
    if node.op_type in PRODUCTS:
        return tuple(o for o in region.values() if product(o))
    if node.op_type in MOVEMENT:
        return tuple(o for o in region.values() if movement(o))
    return tuple(o for o in region.values() if o.op_type not in PRODUCTS and not movement(o))


def name_after_source(source: onnx.ModelProto, canonical: ir.Model) -> None:
    """Give canonical nodes that rewrites have named a name from the input file, where one is free.

    A product is called after a product, anything else after a node of its type, or after the one that wrote its output
    (not if it only moves data: a Reshape called after the Add before it would mislead).
    """
    known = {n.name for n in source.graph.node}
    taken = {str(n.name) for n in canonical.graph}
    stands_for = source_nodes(source, canonical)
    for node in canonical.graph:
        named = [n for n in stands_for.get(str(node.name), ()) if n.name and n.name not in taken]
        alike = [n for n in named if n.op_type == node.op_type or (node.op_type in PRODUCTS and n.op_type in PRODUCTS)]
        writers = [n for n in named if node.op_type not in MOVEMENT and node.outputs[0].name in n.output]
        if node.name not in known and (alike or writers):
            taken.discard(str(node.name))
            node.name = (alike or writers)[0].name
            taken.add(node.name)
