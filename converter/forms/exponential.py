"""Exponentials of what lies below the largest number of a row, on codes: a maximum, a difference, and the tail of a sigmoid.

A difference of two codes of 7 bits has 8, and is exact. Far below zero a sigmoid is an exponential: sigmoid(x - c) = exp(x - c) /
(1 + exp(x - c)), and the runtime looks it up for each of the 256 codes (onnxruntime/contrib_ops/cpu/qlinear_lookup_table.cc).
See :mod:`converter.transforms.softmax.late` for what these operators are part of.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converter.forms.form import Context, Earlier, Form, Rule, SupportedForm, UnsupportedForm
from converter.graph.marks import SOFTMAX_ROWS
from converter.graph.queries import attributes
from converter.plan.records import OpPlan
from converter.quantization import integer_arithmetic
from converter.quantization.parameters import QuantParams

if TYPE_CHECKING:
    from converter.emit.builder import Writer
    from converter.verify.simulation import Run

__all__ = ["DIFFERENCE", "EXPONENTIAL", "ROW_MAXIMUM", "SCORE_BITS", "difference_params", "exponential_params", "offer_row"]

SCORE_BITS = 7
"""Of what differences are taken of."""

_TAIL = 6.0
"""Where on the sigmoid the largest number lies, below zero: its exponential there is off by a quarter of a percent."""

_NO_KERNEL = "ONNX Runtime's CPU provider has no integer kernel for {}"


def offer_row(form: str) -> Rule:
    """What offers a form to an operator on the rows of a softmax that is divided later."""

    def offer(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
        if SOFTMAX_ROWS not in node.metadata_props or not context.target.signed_activations:
            return UnsupportedForm(_NO_KERNEL.format(node.op_type))
        return SupportedForm(form, {}, False, *context.cost(node))

    return offer


def difference_params(scores: QuantParams) -> QuantParams:
    """The grid of the differences of codes of one grid."""
    return QuantParams(scores.scale, (0,), 8, scores.signed)


def exponential_params(like: QuantParams) -> QuantParams:
    """The grid from 0 to 1, of as many bits as another."""
    return QuantParams((1.0 / (2**like.bits - 1),), (like.qmin,), like.bits, like.signed)


def _tail(below: QuantParams, grid: QuantParams) -> tuple[QuantParams, QuantParams]:
    """How the sigmoid reads differences, and how it writes codes of a grid from 0 to 1."""
    zero = min(below.qmax, round(_TAIL / below.scale[0]))
    largest = 1.0 / (1.0 + math.exp(zero * below.scale[0]))
    return replace(below, zero_point=(zero,)), grid.rescaled(largest)


def _emit_difference(writer: Writer, node: ir.Node, _: OpPlan) -> None:
    x, largest = node.inputs
    assert x is not None and largest is not None
    codes = writer.codes[x].value
    below = writer.new.add("Sub", [codes, writer.codes[largest].value], name=str(node.name), dtype=codes.dtype or ir.DataType.INT8)
    writer.give_codes(node.outputs[0], below)


def _emit_maximum(writer: Writer, node: ir.Node, _: OpPlan) -> None:
    x, axes = node.inputs[0], node.inputs[1]
    assert x is not None
    codes = writer.codes[x].value
    inputs = [codes, writer.float_value(axes, str(node.name))]
    largest = writer.new.add("ReduceMax", inputs, attributes(node), name=str(node.name), dtype=codes.dtype or ir.DataType.INT8)
    writer.give_codes(node.outputs[0], largest)


def _emit_exponential(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    x, output, name = node.inputs[0], node.outputs[0], str(node.name)
    assert x is not None
    below, grid = writer.codes[x], writer.params_of(output)
    read, written = _tail(below.params, grid)
    tail = writer.new.add("Sigmoid", [writer.new.dequantize(below.value, read, f"{name}_tail")], name=name)
    writer.give_codes(output, writer.new.quantize(tail, written, str(output.name), (grid.qmin, grid.qmax)))


def _simulate_exponential(run: Run, node: ir.Node, op: OpPlan) -> None:
    x, below, grid = run.read_codes(node.inputs[0]), run.params_of(node.inputs[0]), run.written(node)
    assert x is not None and below is not None and grid is not None
    read, written = _tail(below, grid)
    steep = (integer_arithmetic.centred(x, below) - read.zero_point[0]).float() * float(np.float32(read.scale[0]))
    codes = integer_arithmetic.centred(run.fake_quantize(run.sigmoid(steep), written), written)
    run.store(node, [(codes * float(np.float32(grid.scale[0]))).float()], op)


ROW_MAXIMUM = Form("row_maximum", _emit_maximum, passes_codes=True)
"""The largest code of each row; the output keeps the input's grid."""

DIFFERENCE = Form("difference", _emit_difference, needs=(1,))
"""What lies between codes and the largest of their row, 0 at most."""

EXPONENTIAL = Form("exponential", _emit_exponential, _simulate_exponential, needs=(0,))
"""The tail of a sigmoid, whose codes stand for numbers from 0 to 1."""
