"""A copy with a grid of its own, narrower than that of the original, for the layers that read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from converter.forms.form import CONTAINER_BITS, Context, Earlier, Form, SupportedForm, UnsupportedForm
from converter.graph.queries import is_graph_output
from converter.plan.records import OpPlan

if TYPE_CHECKING:
    from converter.emit.builder import Writer

__all__ = ["REQUANTIZE", "offer_copy"]


def offer_copy(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
    """An Identity, where activations that enter layers have fewer bits than their container."""
    # two grids of 8 bits in a row the runtime would merge into one of its own making
    if context.activation_bits == CONTAINER_BITS or is_graph_output(node.outputs[0]):
        return UnsupportedForm("a copy needs no kernel", final=True)
    size = context.size(str(node.outputs[0].name))
    return SupportedForm("requantize", {}, False, 0.0, context.target.dequantize(size) + context.target.quantize(size))


def _emit(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    writer.requantize(node, op)


REQUANTIZE = Form("requantize", _emit)
"""DQ and Q, no operator between them."""
