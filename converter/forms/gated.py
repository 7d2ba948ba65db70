"""Activation functions that multiply x with a gate. HardSwish, x * relu6(x + 3) / 6, is an integer addition and an integer multiplication;
GELU as quick GELU, x times a sigmoid of x, an integer Sigmoid and an integer multiplication.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from converter.forms.float_only import STEPS, reach
from converter.forms.form import Context, Earlier, Form, SupportedForm, UnsupportedForm
from converter.graph.queries import attributes, data_inputs
from converter.plan.records import OpPlan, quick_gelu_of
from converter.quantization import integer_arithmetic
from converter.quantization.gated_activations import HARD_SIGMOID_OFFSET, fit_quick_gelu, gate_grid, offset_grid, sigmoid_grid
from converter.quantization.parameters import quantize
from converter.torch_backend import ops as torch_ops

if TYPE_CHECKING:
    from converter.emit.builder import Writer
    from converter.planning.validate import Check
    from converter.verify.simulation import Run

__all__ = ["GELU", "HARD_SWISH", "offer_gelu", "offer_hard_swish"]


def offer_hard_swish(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
    """Any HardSwish."""
    return SupportedForm("hardswish", {}, False, *context.cost(node))


def _emit_hard_swish(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    """The division by six only renames the scale of relu6's codes."""
    x = node.inputs[0]
    assert x is not None
    new, codes, name = writer.new, writer.codes[x], str(node.name)
    shift, gate = offset_grid(signed=codes.params.signed), gate_grid(signed=codes.params.signed)
    three = new.initializer(f"{name}_offset_quantized", quantize(np.asarray(HARD_SIGMOID_OFFSET, np.float32), shift))
    left = writer.decode(codes, f"{name}_gate_input")
    total = new.add("Add", [left, new.dequantize(three, shift, f"{name}_offset")], name=f"{name}_gate_Add")
    gated = new.quantize(total, gate, f"{name}_gate", (gate.qmin, gate.qmax))
    share = new.dequantize(gated, gate.rescaled(1.0 / 6.0), f"{name}_gate_share")
    writer.multiply(node, codes, share)
    writer.encode_outputs(node, op)


def _simulate_hard_swish(run: Run, node: ir.Node, op: OpPlan) -> None:
    x, grid = run.read_codes(node.inputs[0]), run.params_of(node.inputs[0])
    out = run.written(node)
    assert x is not None and grid is not None and out is not None
    codes, shift, gate = integer_arithmetic.centred(x, grid), offset_grid(signed=grid.signed), gate_grid(signed=grid.signed)
    three = integer_arithmetic.centred(torch.tensor(HARD_SIGMOID_OFFSET), shift)
    gated = integer_arithmetic.centred(integer_arithmetic.add(codes, three, (grid, shift), gate), gate)
    run.store(node, [integer_arithmetic.multiply(codes, gated, (grid, gate.rescaled(1.0 / 6.0)), out)], op)


HARD_SWISH = Form("hardswish", _emit_hard_swish, _simulate_hard_swish)
"""An addition and a multiplication."""


def offer_gelu(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
    """A GELU to which x times a fitted sigmoid is as close as rounding its output is."""
    (x,), out = [str(v.name) for _, v in data_inputs(node)], context.seen.tensors[str(node.outputs[0].name)]

    def function(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return torch_ops.apply("Gelu", [torch.from_numpy(values)], attributes(node))[0].numpy()

    gate, error = fit_quick_gelu(context.seen.tensors[x].sample, function)
    if error > (reach(out) / STEPS) ** 2 / 12.0:  # what rounding its output costs anyway
        return UnsupportedForm("on what it reads, x times a sigmoid is not as close to it as a grid of 8 bits")
    float_cost, integer_cost = context.cost(node)
    return SupportedForm("gelu", {}, False, float_cost, integer_cost, coefficients=gate)


def _emit_gelu(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    """The gate's slope, height and base rename scales and a zero point."""
    x, gate = node.inputs[0], quick_gelu_of(op)
    assert x is not None
    new, codes, name = writer.new, writer.codes[x], str(node.name)
    signed = codes.params.signed
    steep = new.dequantize(codes.value, codes.params.rescaled(gate.slope), f"{name}_gate_input")
    opened = new.add("Sigmoid", [steep], name=f"{name}_gate_Sigmoid")
    grid = sigmoid_grid(signed=signed)
    gated = new.quantize(opened, grid, f"{name}_gate", (grid.qmin, grid.qmax))
    share = new.dequantize(gated, gate.read_grid(signed=signed), f"{name}_gate_share")
    writer.multiply(node, codes, share)
    writer.encode_outputs(node, op)


def _simulate_gelu(run: Run, node: ir.Node, op: OpPlan) -> None:
    x, grid = run.read_codes(node.inputs[0]), run.params_of(node.inputs[0])
    gate, out = quick_gelu_of(op), run.written(node)
    assert x is not None and grid is not None and out is not None
    codes = integer_arithmetic.centred(x, grid)
    steep = codes * float(np.float32(grid.scale[0] * gate.slope))
    share = sigmoid_grid(signed=grid.signed)
    opened = integer_arithmetic.centred(run.fake_quantize(torch.sigmoid(steep), share), share)
    product = integer_arithmetic.multiply(codes, opened - gate.base, (grid, gate.read_grid(signed=grid.signed)), out)
    run.store(node, [product], op)


def _check_gelu(check: Check, node: ir.Node, op: OpPlan) -> None:
    """Numbers of any size could leave the range of sound scales."""
    if len(op.coefficients) != 3 or not (
        0.25 <= op.coefficients[0] <= 4.0 and 0.25 <= op.coefficients[1] <= 4.0 and op.coefficients[2] in range(128)
    ):
        raise check.refuse(f"the gate of operator '{node.name}' is a slope and a height of 0.25 to 4 and a base of 0 to 127")


GELU = Form("gelu", _emit_gelu, _simulate_gelu, _check_gelu)
"""A sigmoid and a multiplication."""
