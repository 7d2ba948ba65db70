"""GELU as quick GELU, x times a sigmoid of x: an integer Sigmoid and an integer multiplication."""

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
from converter.quantization.gated_activations import fit_quick_gelu, sigmoid_grid
from converter.torch_backend import ops as torch_ops

if TYPE_CHECKING:
    from converter.emit.builder import Writer
    from converter.planning.validate import Check
    from converter.verify.simulation import Run

__all__ = ["GELU", "offer_gelu"]


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


def _emit(writer: Writer, node: ir.Node, op: OpPlan) -> None:
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


def _simulate(run: Run, node: ir.Node, op: OpPlan) -> None:
    x, grid = run.read_codes(node.inputs[0]), run.params_of(node.inputs[0])
    gate, out = quick_gelu_of(op), run.written(node)
    assert x is not None and grid is not None and out is not None
    codes = integer_arithmetic.centred(x, grid)
    steep = codes * float(np.float32(grid.scale[0] * gate.slope))
    share = sigmoid_grid(signed=grid.signed)
    opened = integer_arithmetic.centred(run.fake_quantize(torch.sigmoid(steep), share), share)
    product = integer_arithmetic.multiply(codes, opened - gate.base, (grid, gate.read_grid(signed=grid.signed)), out)
    run.store(node, [product], op)


def _check(check: Check, node: ir.Node, op: OpPlan) -> None:
    """Numbers of any size could leave the range of sound scales."""
    if len(op.coefficients) != 3 or not (
        0.25 <= op.coefficients[0] <= 4.0 and 0.25 <= op.coefficients[1] <= 4.0 and op.coefficients[2] in range(128)
    ):
        raise check.refuse(f"the gate of operator '{node.name}' is a slope and a height of 0.25 to 4 and a base of 0 to 127")


GELU = Form("gelu", _emit, _simulate, _check)
"""A sigmoid and a multiplication."""
