"""Float regions: what a plan leaves in float, in pieces that the runtime can compute as it does in the emitted model.

The runtime joins float operators, a sum and a LayerNormalization for instance, and rounds otherwise then than operator by
operator. In front of a rounding step the last bits are enough to move a code. A region holds all that the runtime may
join, so that it is joined in the same way when the region is a model of its own. Where an earlier region with a convolution
hands it a tensor, that region comes along: whether a sum is joined to a convolution depends on the layout of its other operand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from converter.graph.operator_sets import CONVOLUTIONS
from converter.graph.queries import constant

__all__ = ["Region", "order_by_regions", "region_constants", "region_graph"]


@dataclass(frozen=True)
class Region:
    """Float operators between which nothing is quantized.

    Attributes:
        nodes: in topological order.
        inputs: computed values that they read and do not make.
        outputs: values that others read, and outputs of the model.
        context: operators of earlier regions that come along, in topological order; ``inputs`` are theirs too.
    """

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    context: tuple[ir.Node, ...] = ()


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
    made: dict[ir.Value, Region] = {}
    for depth in sorted(set(level.values())):
        members = [n for n in nodes if level[n] == depth]
        floats = [n for n in members if in_float(n)]
        if floats:
            region = _region(floats, made)
            made |= dict.fromkeys(region.outputs, region)
            order.append(region)
        order += [n for n in members if not in_float(n)]
    return order


def _region(nodes: Sequence[ir.Node], earlier: Mapping[ir.Value, Region]) -> Region:
    before = [earlier[v] for v in _read(nodes) if v in earlier]
    context = tuple(dict.fromkeys(n for r in before if _has_layout(r) for n in (*r.context, *r.nodes)))
    return Region(tuple(nodes), _read([*context, *nodes]), _handed_on(nodes), context)


def _has_layout(region: Region) -> bool:
    """True if the runtime may lay its tensors out in blocks of channels."""
    return any(n.op_type in CONVOLUTIONS for n in (*region.context, *region.nodes))


def _read(nodes: Sequence[ir.Node]) -> tuple[ir.Value, ...]:
    """Computed values that operators read and do not make."""
    made = {v for n in nodes for v in n.outputs}
    return tuple(dict.fromkeys(v for n in nodes for v in n.inputs if v is not None and v not in made and constant(v) is None))


def _handed_on(nodes: Sequence[ir.Node]) -> tuple[ir.Value, ...]:
    """Values that others than these operators read, and outputs of the model."""
    inside = set(nodes)
    made = [v for n in nodes for v in n.outputs if v.name]
    return tuple(v for v in made if v.is_graph_output() or any(use.node not in inside for use in v.uses()))


def region_constants(region: Region) -> dict[str, ir.Value]:
    """Constants that the operators of a region read, by name."""
    read = (v for n in (*region.context, *region.nodes) for v in n.inputs if v is not None)
    return {str(v.name): v for v in read if constant(v) is not None}


def region_graph(
    region: Region, inputs: Sequence[onnx.ValueInfoProto], others: Mapping[str, npt.NDArray[Any]] = MappingProxyType({})
) -> onnx.GraphProto:
    """A region as a graph. The runtime finds out the types of the outputs.

    Args:
        inputs: with their types.
        others: what stands for some constants, by their names.
    """
    nodes = (*region.context, *region.nodes)
    arrays = {name: others[name] if name in others else constant(v) for name, v in region_constants(region).items()}
    outputs = dict.fromkeys([*region.outputs, *_handed_on(nodes), *_handed_on(region.context)])
    return helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "region",
        inputs,
        [onnx.ValueInfoProto(name=str(v.name)) for v in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items() if array is not None],
    )
