"""The integer forms by name, and which rule says whether an operator can have one.

They are those that ONNX Runtime's CPU provider turns into integer kernels when Q and DQ stand around the operator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir

from converter.forms.clamp import ABSORBED_CLAMP, CLIP, offer_clamp
from converter.forms.elementwise import ELEMENTWISE, offer_binary, offer_global_average, offer_unary
from converter.forms.form import Context, Earlier, Form, Rule, SupportedForm, UnsupportedForm
from converter.forms.gelu import GELU, offer_gelu
from converter.forms.hard_swish import HARD_SWISH, offer_hard_swish
from converter.forms.layer import COLUMN_CONVOLUTION, LINEAR_CONVOLUTION, PRODUCT, WEIGHTED, offer_conv, offer_linear
from converter.forms.movement import CONCAT, JOIN, MOVEMENT, PAD, offer_concat, offer_movement, offer_pad
from converter.forms.piecewise_linear import PIECEWISE_LINEAR
from converter.forms.requantize import PIXELS, REQUANTIZE, offer_copy, offer_pixels
from converter.forms.rescale import RESCALE
from converter.graph.macs import macs_of
from converter.graph.operator_sets import MOVEMENT as MOVING

__all__ = ["FORMS", "PASSING", "RULES", "WITHOUT_FORM", "WITH_WEIGHTS", "offer_node"]

FORMS: Mapping[str, Form] = {
    form.name: form
    for form in (
        WEIGHTED,
        LINEAR_CONVOLUTION,
        COLUMN_CONVOLUTION,
        PRODUCT,
        ELEMENTWISE,
        MOVEMENT,
        CONCAT,
        JOIN,
        ABSORBED_CLAMP,
        CLIP,
        PAD,
        RESCALE,
        HARD_SWISH,
        GELU,
        PIECEWISE_LINEAR,
        REQUANTIZE,
        PIXELS,
    )
}

PASSING = frozenset(name for name, form in FORMS.items() if form.passes_codes)
"""Forms whose output holds the codes of their one computed input."""

WITH_WEIGHTS = frozenset([WEIGHTED.name, LINEAR_CONVOLUTION.name, COLUMN_CONVOLUTION.name])
"""Forms of layers with constant weights, which can be rounded in other ways than to the nearest, and have biases."""

WITHOUT_FORM = ("AveragePool", "MaxPool", "Softmax")
"""Operators of whose integer kernels no form makes use: they cost more than float, or more than the convolution that an average becomes."""


def _without_form(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
    floats, codes = context.cost(node)
    share = "is several times slower than float" if math.isinf(codes) else f"costs {codes / floats:.1f} times the float one"
    return UnsupportedForm(f"there is no integer form of {node.op_type}: the runtime's kernel {share}")


def _no_kernel(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
    return UnsupportedForm(f"ONNX Runtime's CPU provider has no integer kernel for {node.op_type}", macs_of(node, context.shapes))


RULES: Mapping[str, Rule] = {
    "Conv": offer_conv,
    "Gemm": offer_linear,
    "MatMul": offer_linear,
    "Add": offer_binary,
    "Mul": offer_binary,
    "GlobalAveragePool": offer_global_average,
    "Sigmoid": offer_unary,
    "LeakyRelu": offer_unary,
    "HardSwish": offer_hard_swish,
    "Gelu": offer_gelu,
    "Concat": offer_concat,
    "Identity": offer_copy,
    "DequantizeLinear": offer_pixels,
    "Pad": offer_pad,
    "Relu": offer_clamp,
    "Clip": offer_clamp,
    **dict.fromkeys(MOVING, offer_movement),
    **dict.fromkeys(WITHOUT_FORM, _without_form),
}
"""By operator type."""


def offer_node(node: ir.Node, context: Context, earlier: Earlier) -> SupportedForm | UnsupportedForm:
    """The integer form that an operator of this type could have, and its cost, or why there is none."""
    return RULES.get(node.op_type, _no_kernel)(node, context, earlier)
