"""Codes that are made of codes: copies, with a grid narrower than the original's, for the layers that read them; and pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx_ir as ir

from converter.forms.form import CONTAINER_BITS, Context, Earlier, Form, SupportedForm, UnsupportedForm
from converter.graph.queries import constant, gives_pixels, is_graph_output
from converter.plan.records import OpPlan
from converter.quantization.parameters import QuantParams
from converter.targets import Target
from converter.targets.costs import Shapes

if TYPE_CHECKING:
    from converter.emit.builder import Writer
    from converter.planning.validate import Check

__all__ = ["PIXELS", "REQUANTIZE", "offer_copy", "offer_pixels", "pixel_params"]


def offer_copy(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
    """An Identity, where activations that enter layers have fewer bits than their container."""
    # two grids of 8 bits in a row the runtime would merge into one of its own making
    if context.activation_bits == CONTAINER_BITS or is_graph_output(node.outputs[0]):
        return UnsupportedForm("a copy needs no kernel", final=True)
    return SupportedForm("requantize", {}, False, 0.0, REQUANTIZE.cost(node, context.shapes, context.target))


def _conversions(node: ir.Node, shapes: Shapes, target: Target) -> float:
    name = str(node.outputs[0].name)
    size = math.prod(shapes[name]) if name in shapes else 0
    return target.dequantize(size) + target.quantize(size)


def _emit(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    writer.requantize(node, op)


REQUANTIZE = Form("requantize", _emit, cost=_conversions)
"""DQ and Q, no operator between them."""


def pixel_params(signed: bool) -> QuantParams:
    """The parameters of what pixels are decoded to: whole steps from zero on."""
    return QuantParams((1.0,), (-128 if signed else 0,), signed=signed)


def offer_pixels(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
    """A DequantizeLinear of pixels, whose codes are the pixels, or whole steps of a little more than one of them."""
    if not gives_pixels(node):
        return UnsupportedForm("it reads codes that the model makes itself", final=True)
    if context.activation_bits != CONTAINER_BITS:
        return UnsupportedForm("pixels have 8 bits")
    return SupportedForm("pixels", {}, False, *context.cost(node, PIXELS))


def _pixel_cost(node: ir.Node, shapes: Shapes, target: Target) -> float:
    return 0.0 if _as_they_are(node, target.signed_activations) else _conversions(node, shapes, target)


def _as_they_are(node: ir.Node, signed: bool) -> bool:
    """True if pixels are the codes."""
    scale = constant(node.inputs[1])
    return not signed and scale is not None and scale.size == 1 and float(scale.reshape(())) == 1.0


def _emit_pixels(writer: Writer, node: ir.Node, _: OpPlan) -> None:
    x, output = node.inputs[0], node.outputs[0]
    grid = writer.params_of(output)
    source = writer.float_value(x, str(node.name))
    assert source is not None
    if _as_they_are(node, grid.signed):
        writer.give_codes(output, source)
        return
    writer.copy_node(node, [source, *(writer.float_value(v, str(node.name)) for v in node.inputs[1:])])
    writer.quantize(output, writer.real.pop(output), (grid.qmin, grid.qmax))


def _check_pixels(check: Check, node: ir.Node, op: OpPlan) -> None:
    tensor = check.plan.tensors.get(str(node.outputs[0].name))
    wanted = pixel_params(check.target.signed_activations)
    if op.coefficients or tensor is None or tensor.kind != "fixed" or tensor.params != wanted:
        raise check.refuse(f"tensor '{node.outputs[0].name}' is pixels: its scale is 1 and its zero point {wanted.zero_point[0]}")


PIXELS = Form("pixels", _emit_pixels, check=_check_pixels, cost=_pixel_cost)
"""Nothing, where codes are unsigned and pixels are not scaled; else a DQ of pixels and a Q."""
