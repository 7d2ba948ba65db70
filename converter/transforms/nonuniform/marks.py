"""Which nodes are part of a grid that is not uniform, and who reads one. Read-only questions about a graph."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from converter.graph.marks import NONUNIFORM
from converter.graph.operator_sets import MOVEMENT

__all__ = ["layer_inputs", "quantizer_of", "reads_logarithms", "reads_nonuniform", "source_of"]

_WHOLE = frozenset(["log2", "log-sqrt2", "log-int-softmax", "power-of-two"])
"""Kinds whose last node gives all numbers of a tensor; a twin grid gives two tensors, each on an ordinary grid."""

_MOVES = MOVEMENT - {"Resize"} | {"Identity"}


def quantizer_of(node: ir.Node | None) -> str:
    """The kind of grid that a node is part of; an empty string if none."""
    return "" if node is None else str(node.metadata_props.get(NONUNIFORM, ""))


def source_of(value: ir.Value | None) -> ir.Node | None:
    """The operator that computed a tensor's numbers, which may have been moved and copied since."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in _MOVES:
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node


def reads_logarithms(node: ir.Node) -> bool:
    """True if an operand lies on a logarithmic grid, moved or not."""
    return any(quantizer_of(source_of(value)).startswith("log") for value in node.inputs)


def layer_inputs(model: ir.Model, kinds: Collection[str]) -> frozenset[str]:
    """Names of the operators whose results, moved or not, get a grid of one of these kinds."""
    parts = (node for node in model.graph if quantizer_of(node) in kinds)
    makers = (source_of(value) for node in parts for value in node.inputs)
    return frozenset(str(node.name) for node in makers if node is not None and not quantizer_of(node))


def reads_nonuniform(node: ir.Node) -> bool:
    """True if an operand, moved or not, lies on a grid that is not uniform, as a whole."""
    return any(quantizer_of(source_of(value)) in _WHOLE for value in node.inputs)
