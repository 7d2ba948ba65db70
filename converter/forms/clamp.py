"""A Relu or Clip at the end of an integer operator: the clamp happens on the codes, Q(clamp(x)) = clip(Q(x)), as Q is monotone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from converter.forms.form import Context, Earlier, Form, SupportedForm, UnsupportedForm
from converter.graph.queries import scalar, sole_consumer
from converter.plan.records import OpPlan
from converter.quantization.gated_activations import clamp_codes

if TYPE_CHECKING:
    from converter.emit.builder import Writer

__all__ = ["CLAMP", "offer_clamp"]


def offer_clamp(node: ir.Node, context: Context, earlier: Earlier) -> SupportedForm | UnsupportedForm:
    """A clamp with constant limits that alone reads what an integer operator writes."""
    x = node.inputs[0]
    producer = x.producer() if x is not None else None
    before = earlier.get(str(producer.name)) if producer is not None else None
    if node.op_type == "Clip" and any(v is not None and scalar(v) is None for v in node.inputs[1:]):
        return UnsupportedForm("its limits are computed")
    if not isinstance(before, SupportedForm) or before.form not in ("weighted", "product", "pointwise"):
        return UnsupportedForm(f"{node.op_type} runs in integer only as the end of an integer operator that has a grid of its own")
    if x is None or sole_consumer(x) is not node:
        return UnsupportedForm("what it clamps is read by others too, so it cannot become part of the operator before it")
    return SupportedForm("absorbed", {}, False, *context.cost(node))


def _emit(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    x, output = node.inputs[0], node.outputs[0]
    assert x is not None
    source, grid = writer.float_value(x, str(node.name)), writer.params_of(output)
    assert source is not None
    writer.quantize(output, source, clamp_codes(node.op_type, [scalar(v) for v in node.inputs[1:]], grid))


CLAMP = Form("absorbed", _emit, reads_codes=False)
"""The grid of the output does the clamping."""
