"""Barriers: keep what the plan keeps in float from being taken for integer by the runtime.

The runtime looks at an operator's neighbours, not at plans: what stands between a DQ and a Q becomes an integer kernel,
wanted or not. A Softmax, an AveragePool or a MaxPool becomes a much slower one; an operator that the user excluded runs
in integer all the same; and a Conv, ConvTranspose or Gemm with float weights gets them rounded to int8, one scale for the
whole tensor, when the model is loaded. The runtime also moves Q and DQ through operators that only move data, and through
MaxPool. Cases:

1. A float operator of :data:`TAKEN` between a DQ and a Q: a barrier behind it, and in front of a clamp before the Q.
2. A float MaxPool behind a DQ or in front of a Q: a barrier on that side.
3. A float MatMul that reads two DQs, whoever reads its output: a barrier in front of one.
4. A float Add between a MatMul that reads a DQ and a Q, which the runtime joins to a Gemm: a barrier behind the Add.
5. A float Add of a constant to what an integer MatMul writes as float, which it joins to a float Gemm: a barrier between the two.

6. A float layer in front of a Q with one scale per channel, with which the runtime would join it: a barrier behind the layer.

A barrier is a ``Max`` of one operand. It copies its input, and the runtime neither removes it nor moves anything
through it.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from converter.graph.builder import GraphBuilder
from converter.graph.operator_sets import BARRIER, CLAMPS, MOVEMENT, PRODUCTS
from converter.graph.queries import constant

__all__ = ["TAKEN", "add_barriers"]

TAKEN = frozenset(
    ["Add", "ArgMax", "AveragePool", "Concat", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul", "Mul", "Resize",
     "Sigmoid", "Softmax", "Split", "TopK", "Where"]
)  # fmt: skip
"""Operators that the runtime replaces, or whose weights it rounds, when they stand between a DQ and a Q."""

_PASSED = MOVEMENT - {"Resize", "Split"} | {"MaxPool"}
"""Operators through which Q and DQ are moved, or which join an integer chain."""


def add_barriers(builder: GraphBuilder, floats: Collection[str]) -> None:
    """Add barriers to an emitted graph, in place.

    Args:
        builder: of the emitted graph, every Q and DQ in place.
        floats: names of the nodes that are to run in float.
    """
    for node in list(builder.graph):
        if str(node.name) not in floats:
            continue
        if node.op_type == "Add" and any(constant(v) is not None for v in node.inputs):
            for index, value in enumerate(node.inputs):
                maker = value.producer() if value is not None else None
                if maker is not None and str(maker.name) not in floats and _is_product(value):
                    _before(builder, node, index)
        behind = [i for i, value in enumerate(node.inputs) if _comes_from_codes(value) or (node.op_type == "Add" and _is_product(value))]
        if node.op_type == "MaxPool" and behind:
            _before(builder, node, 0)
        if node.op_type == "MatMul" and len(behind) == 2:
            _before(builder, node, 1)
        elif node.op_type == "MaxPool" or (node.op_type in TAKEN and behind) or (node.op_type in PRODUCTS and _meets_channels(node)):
            for output in node.outputs:
                _behind(builder, node, output)


def _comes_from_codes(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in _PASSED and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type == "DequantizeLinear" and constant(node.inputs[0]) is None


def _is_product(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    return node is not None and node.op_type == "MatMul" and any(_comes_from_codes(v) for v in node.inputs)


def _goes_to_codes(node: ir.Node, index: int) -> bool:
    if index != 0:
        return False
    if node.op_type == "QuantizeLinear":
        return True
    return (node.op_type in _PASSED or node.op_type in CLAMPS) and any(
        _goes_to_codes(use.node, use.idx) for output in node.outputs for use in output.uses()
    )


def _meets_channels(node: ir.Node) -> bool:
    """True if a Q with one scale per channel reads what the node writes, or what operators that only move data make of it."""
    readers = [use.node for output in node.outputs for use in output.uses() if use.idx == 0]
    quantized = (constant(reader.inputs[1]) for reader in readers if reader.op_type == "QuantizeLinear")
    return any(s is not None and s.size > 1 for s in quantized) or any(_meets_channels(r) for r in readers if r.op_type in _PASSED)


def _before(builder: GraphBuilder, node: ir.Node, index: int) -> None:
    value = node.inputs[index]
    node.replace_input_with(index, builder.add(BARRIER, [value], name=f"{node.name}_input_barrier", like=value, before=node))


def _behind(builder: GraphBuilder, node: ir.Node, output: ir.Value) -> None:
    users = [use for use in output.uses() if _goes_to_codes(use.node, use.idx)]
    if not users:
        return
    barrier = builder.add(BARRIER, [output], name=f"{output.name}_barrier", like=output, after=node)
    for use in users:
        use.node.replace_input_with(use.idx, barrier)
