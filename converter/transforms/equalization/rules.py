"""How per-channel factors and shifts pass through each operator: one rule an operator type, exact or not at all.

Writing x = s x' + m for a tensor that is rescaled, a rule finds s and m of the outputs, and which constants change:

* a layer reading x: W x + b = (W s) x' + (b + W m); giving y: y' = ((W / s_y) x + (b - m_y) / s_y);
* a positively homogeneous operator, f(s x') = s f(x'), passes s; averages, maxima and interpolations pass m as well;
* data movement passes both, whatever the axes do: the labels themselves are moved;
* an addition of two tensors needs one factor on both; a product of two passes the factor of one if the other has none,
  or cancels s along the axis it sums over against 1/s there; a quotient passes the factor of what is divided.

Operators without a rule let nothing pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from converter.graph.operator_sets import REARRANGEMENT
from converter.transforms.equalization.layer_rules import conv, gemm, matmul, normalization
from converter.transforms.equalization.passthrough_rules import (
    addition,
    combine,
    homogeneous,
    movement,
    pooled,
    product_by_element,
    quotient,
    reduced,
    resized,
)
from converter.transforms.equalization.tracker import Tracker

__all__ = ["visit"]

Rule = Callable[[Tracker, ir.Node], None]


def visit(tracker: Tracker, node: ir.Node) -> None:
    """Take an operator into account; its inputs have been visited."""
    _RULES.get(node.op_type, Tracker.opaque)(tracker, node)


_RULES: Mapping[str, Rule] = {
    "Conv": conv,
    "Gemm": gemm,
    "MatMul": matmul,
    "LayerNormalization": normalization,
    "InstanceNormalization": normalization,
    "Add": addition,
    "Sub": addition,
    "Mul": product_by_element,
    "Div": quotient,
    "Max": combine,
    "Min": combine,
    **dict.fromkeys(("Abs", "Clip", "LeakyRelu", "PRelu", "Relu"), homogeneous),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"), pooled),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), reduced),
    "Resize": resized,
    **dict.fromkeys(REARRANGEMENT | {"Concat"}, movement),
}
