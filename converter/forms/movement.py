"""Operators that move numbers, and their codes likewise: the output keeps the input's grid; most Concats have one of their own."""

from __future__ import annotations

import onnx_ir as ir

from converter.forms.form import CONTAINER_BITS, Context, Earlier, Form, SupportedForm, UnsupportedForm, cost_as
from converter.graph.marks import BORDER
from converter.graph.operator_sets import MOVEMENT as MOVING
from converter.graph.queries import attributes, constant, data_inputs
from converter.plan.choice import Constant
from converter.targets.costs import COPY_KIND

__all__ = ["CONCAT", "JOIN", "MOVEMENT", "moves_codes", "offer_concat", "offer_movement", "passed_input"]


def _obstacle(node: ir.Node) -> str:
    """Why an operator that moves data cannot move codes; empty if it can."""
    if node.op_type == "Resize" and attributes(node).get("mode", "nearest") != "nearest":
        return "interpolating Resize is not faster in integer"
    if [i for i, _ in data_inputs(node)] != [0]:
        return "its data operand is a constant"
    if node.op_type == "Split" and any(not o.uses() and not o.is_graph_output() for o in node.outputs):
        return "one of its outputs is not used, and the integer form needs them all"
    return ""


def moves_codes(node: ir.Node) -> bool:
    """True if the node moves numbers and can do so with codes."""
    return node.op_type in MOVING and not _obstacle(node)


def offer_movement(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
    """An operator that only moves numbers."""
    obstacle = _obstacle(node)
    return UnsupportedForm(obstacle) if obstacle else SupportedForm("movement", {}, False, *context.cost(node))


def offer_concat(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
    """A Concat of tensors, whose grids may differ; constants, such as a class token, have one of their own."""
    if BORDER in node.metadata_props:
        return SupportedForm("join", {}, False, *context.cost(node, JOIN))
    signed = context.target.signed_activations
    arrays = {index: array for index, value in enumerate(node.inputs) if (array := constant(value)) is not None}
    constants = {index: Constant(array, None, CONTAINER_BITS, signed) for index, array in arrays.items()}
    return SupportedForm("concat", constants, False, *context.cost(node))


def passed_input(node: ir.Node) -> ir.Value:
    """The computed input whose codes the output of a form that passes codes holds."""
    values = [value for _, value in data_inputs(node)]
    return values[1] if BORDER in node.metadata_props else values[0]


MOVEMENT = Form("movement", passes_codes=True)
"""The output keeps the input's grid."""

JOIN = Form("join", passes_codes=True, cost=cost_as(COPY_KIND))
"""A Concat that puts a border around its second input, whose grid holds that too."""

CONCAT = Form("concat")
"""Inputs may differ; the output has a grid of its own."""
