"""A Relu or Clip: the clamp happens on the codes, Q(clamp(x)) = clip(Q(x)), as Q is monotone.

At the end of an integer operator it needs no node of its own; elsewhere it is a Clip of codes, which keep their grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from converter.forms.form import Context, Earlier, Form, SupportedForm, UnsupportedForm, cost_as
from converter.graph.operator_sets import PRODUCTS
from converter.graph.queries import scalar, sole_consumer
from converter.plan.records import OpPlan
from converter.quantization.gated_activations import clamp_codes
from converter.targets.costs import PIECEWISE_LINEAR_KIND

if TYPE_CHECKING:
    from converter.emit.builder import Writer

__all__ = ["ABSORBED_CLAMP", "CLIP", "offer_clamp"]


def offer_clamp(node: ir.Node, context: Context, earlier: Earlier) -> SupportedForm | UnsupportedForm:
    """A clamp with constant limits: part of the operator before it if it alone reads what that writes, else a node."""
    x = node.inputs[0]
    producer = x.producer() if x is not None else None
    before = earlier.get(str(producer.name)) if producer is not None else None
    if node.op_type == "Clip" and any(v is not None and scalar(v) is None for v in node.inputs[1:]):
        return UnsupportedForm("its limits are computed")
    alone = x is not None and sole_consumer(x) is node
    if alone and isinstance(before, SupportedForm) and before.form in ("weighted", "product", "pointwise"):
        return SupportedForm("absorbed", {}, False, *context.cost(node))
    if alone and producer is not None and producer.op_type in PRODUCTS:
        return UnsupportedForm("it becomes part of the float operator before it")
    return SupportedForm("clip", {}, False, *context.cost(node, CLIP))


def _absorb(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    x, output = node.inputs[0], node.outputs[0]
    assert x is not None
    source, grid = writer.float_value(x, str(node.name)), writer.params_of(output)
    assert source is not None
    writer.quantize(output, source, clamp_codes(node.op_type, [scalar(v) for v in node.inputs[1:]], grid), writer.moves.get(x))


def _clip(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    x, output = node.inputs[0], node.outputs[0]
    assert x is not None
    limits = clamp_codes(node.op_type, [scalar(v) for v in node.inputs[1:]], writer.params_of(output))
    writer.clip_codes(output, x, limits)


ABSORBED_CLAMP = Form("absorbed", _absorb, reads_codes=False, needs=(0,))
"""The grid of the output does the clamping."""

CLIP = Form("clip", _clip, passes_codes=True, cost=cost_as(PIECEWISE_LINEAR_KIND))
"""The output keeps the input's grid."""
