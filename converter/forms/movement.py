"""Operators that move numbers, and their codes likewise: the output keeps the input's grid; most Concats have one of their own. Borders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from converter.forms.form import CONTAINER_BITS, Context, Earlier, Form, SupportedForm, UnsupportedForm, cost_as
from converter.graph.marks import BORDER
from converter.graph.operator_sets import MOVEMENT as MOVING
from converter.graph.queries import attributes, constant, data_inputs, scalar
from converter.plan.choice import Constant
from converter.plan.records import OpPlan
from converter.targets.costs import COPY_KIND

if TYPE_CHECKING:
    from converter.emit.builder import Writer

__all__ = ["CONCAT", "JOIN", "MOVEMENT", "PAD", "moves_codes", "offer_concat", "offer_movement", "offer_pad", "passed_input"]


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


def offer_pad(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
    """A border of zeros, or of numbers of the map."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if [i for i, _ in data_inputs(node)] != [0]:
        return UnsupportedForm("its border is computed")
    if attributes(node).get("mode", "constant") == "constant" and value is not None and scalar(value) != 0.0:
        return UnsupportedForm("its border is of numbers that need not lie on the grid")
    if constant(node.inputs[1]) is None or len(node.inputs) > 3:
        return UnsupportedForm("the width of its border is computed")
    return SupportedForm("pad", {}, False, *context.cost(node))


def _emit_pad(writer: Writer, node: ir.Node, _: OpPlan) -> None:
    x, pads = node.inputs[0], node.inputs[1]
    assert x is not None and pads is not None
    writer.pad_codes(node, x, pads)


MOVEMENT = Form("movement", passes_codes=True)
"""The output keeps the input's grid."""

JOIN = Form("join", passes_codes=True, cost=cost_as(COPY_KIND))
"""A Concat that puts a border around its second input, whose grid holds that too."""

CONCAT = Form("concat")
"""Inputs may differ; the output has a grid of its own."""

PAD = Form("pad", _emit_pad, passes_codes=True)
"""The output keeps the input's grid, on which zero has a code. The runtime has a Pad of codes, but puts none between a DQ and a Q."""
