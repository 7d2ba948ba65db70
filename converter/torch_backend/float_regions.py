"""Float regions: what a plan leaves in float, in pieces that the runtime can compute as it does in the emitted model.

The runtime joins float operators, a sum and a LayerNormalization for instance, and rounds otherwise then than operator by
operator. In front of a rounding step the last bits are enough to move a code. A region holds all that the runtime may
join, so that it is joined in the same way when the region is a model of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from converter.graph.queries import constant

__all__ = ["Region", "order_by_regions", "region_graph"]


@dataclass(frozen=True)
class Region:
    """Float operators between which nothing is quantized.

    Attributes:
        nodes: in topological order.
        inputs: computed values that they read and do not make.
        outputs: values that others read, and outputs of the model.
    """

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]


def order_by_regions(model: ir.Model, in_float: Callable[[ir.Node], bool]) -> list[ir.Node | Region]:
    """All nodes in an order in which they can be computed, regions as a whole.

    A node belongs as late as its readers allow, so that it is in one region with the only operator that reads it.

    Args:
        in_float: whether a node may be part of a region.

    Returns:
        regions, and the other nodes; without constants.
    """
    nodes = [n for n in model.graph if n.op_type != "Constant"]
    level: dict[ir.Node, int] = {}
    for node in reversed(nodes):
        readers = [use.node for value in node.outputs for use in value.uses() if use.node in level]
        level[node] = min((level[r] - (in_float(r) != in_float(node)) for r in readers), default=0)
    order: list[ir.Node | Region] = []
    for depth in sorted(set(level.values())):
        members = [n for n in nodes if level[n] == depth]
        region = [n for n in members if in_float(n)]
        order += [_region(region)] if region else []
        order += [n for n in members if not in_float(n)]
    return order


def _region(nodes: Sequence[ir.Node]) -> Region:
    made = dict.fromkeys(v for n in nodes for v in n.outputs if v.name)
    read = dict.fromkeys(v for n in nodes for v in n.inputs if v is not None and v not in made and constant(v) is None)
    inside = set(nodes)
    outputs = (v for v in made if v.is_graph_output() or any(use.node not in inside for use in v.uses()))
    return Region(tuple(nodes), tuple(read), tuple(outputs))


def region_graph(region: Region, inputs: Sequence[onnx.ValueInfoProto]) -> onnx.GraphProto:
    """A region as a graph with inputs of these types. The runtime finds out the types of the outputs."""
    arrays = {str(v.name): constant(v) for n in region.nodes for v in n.inputs if v is not None}
    return helper.make_graph(
        [ir.to_proto(node) for node in region.nodes],
        "region",
        inputs,
        [onnx.ValueInfoProto(name=str(v.name)) for v in region.outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items() if array is not None],
    )
