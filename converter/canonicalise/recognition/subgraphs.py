"""Subgraphs: groups of nodes with a single computed input and a single output, and what they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from converter.graph.queries import attributes, constant, data_inputs, is_float, is_graph_output
from converter.torch_backend import ops as torch_ops

__all__ = ["Subgraph", "evaluate", "is_pointwise", "subgraphs"]

_LARGEST = 14
_WIDEST = 3


@dataclass(frozen=True)
class Subgraph:
    """A group of nodes that computes ``output`` from ``source`` and constants alone.

    Attributes:
        source: the only computed tensor that enters.
        output: the only tensor that leaves.
        nodes: in topological order.
    """

    source: ir.Value
    output: ir.Value
    nodes: tuple[ir.Node, ...]


def subgraphs(output: ir.Value, order: dict[ir.Node, int], allowed: Callable[[ir.Node], bool]) -> Iterator[Subgraph]:
    """All subgraphs that end in ``output``, from the smallest to the largest.

    A tensor inside a subgraph is read inside that subgraph only, and is not an output of the model.

    Args:
        order: topological position of each node.
        allowed: says which nodes may belong to a subgraph.
    """
    node = output.producer()
    members: dict[ir.Node, None] = {}
    while node is not None and allowed(node) and len(members) < _LARGEST:
        if members and not _read_inside(node, members):
            return
        members[node] = None
        frontier = list(dict.fromkeys(v for m in members for _, v in data_inputs(m) if v.producer() not in members))
        if len(frontier) == 1:
            yield Subgraph(frontier[0], output, tuple(sorted(members, key=order.__getitem__)))
        producers = [p for p in (v.producer() for v in frontier) if p is not None and p in order]
        if not producers or len(frontier) > _WIDEST:
            return
        node = max(producers, key=order.__getitem__)


def _read_inside(node: ir.Node, members: dict[ir.Node, None]) -> bool:
    return all(not is_graph_output(o) and all(user in members for user in o.consumers()) for o in node.outputs)


def is_pointwise(node: ir.Node) -> bool:
    """True if the node maps float tensors place by place, and all its computed operands are known to be float32."""
    if node.op_type not in torch_ops.POINTWISE or node.domain not in ("", "ai.onnx") or not is_float(node.outputs[0]):
        return False
    return all(v is None or constant(v) is not None or is_float(v) for v in node.inputs)


def evaluate(subgraph: Subgraph, x: torch.Tensor) -> torch.Tensor | None:
    """The subgraph's output for a given source tensor, or None if an operator in it is not known.

    Constants of one element count as numbers, whatever their rank.
    """
    values: dict[ir.Value, torch.Tensor] = {subgraph.source: x}
    for node in subgraph.nodes:
        inputs: list[torch.Tensor | None] = []
        for value in node.inputs:
            array = constant(value)
            if array is None:
                inputs.append(None if value is None else values[value])
            elif array.dtype.kind == "f":
                inputs.append(torch.from_numpy(np.array(array.reshape(()) if array.size == 1 else array)).to(x.dtype))
            else:
                inputs.append(torch.from_numpy(np.array(array)))
        try:
            values[node.outputs[0]] = torch_ops.apply(node.op_type, inputs, attributes(node))[0]
        except torch_ops.UnknownOperatorError:
            return None
    return values[subgraph.output]
