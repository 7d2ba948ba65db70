"""A border around a map: ONNX Runtime has a Pad for codes, but puts none between a DQ and a Q, so that it is written for codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from converter.forms.form import Context, Earlier, Form, SupportedForm, UnsupportedForm
from converter.graph.queries import attributes, constant, data_inputs, scalar
from converter.plan.records import OpPlan

if TYPE_CHECKING:
    from converter.emit.builder import Writer

__all__ = ["PAD", "offer_pad"]


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


def _emit(writer: Writer, node: ir.Node, _: OpPlan) -> None:
    x, pads = node.inputs[0], node.inputs[1]
    assert x is not None and pads is not None
    writer.pad_codes(node, x, pads)


PAD = Form("pad", _emit, passes_codes=True)
"""The output keeps the input's grid, on which zero has a code."""
