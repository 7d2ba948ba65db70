"""HardSwish, x * relu6(x + 3) / 6: an integer addition and an integer multiplication."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch

from converter.forms.form import Context, Earlier, Form, SupportedForm, UnsupportedForm
from converter.plan.records import OpPlan
from converter.quantization import integer_arithmetic
from converter.quantization.gated_activations import HARD_SIGMOID_OFFSET, gate_grid, offset_grid
from converter.quantization.parameters import quantize

if TYPE_CHECKING:
    from converter.emit.builder import Writer
    from converter.verify.simulation import Run

__all__ = ["HARD_SWISH", "offer_hard_swish"]


def offer_hard_swish(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
    """Any HardSwish."""
    return SupportedForm("hardswish", {}, False, *context.cost(node))


def _emit(writer: Writer, node: ir.Node, op: OpPlan) -> None:
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


def _simulate(run: Run, node: ir.Node, op: OpPlan) -> None:
    x, grid = run.read_codes(node.inputs[0]), run.params_of(node.inputs[0])
    out = run.written(node)
    assert x is not None and grid is not None and out is not None
    codes, shift, gate = integer_arithmetic.centred(x, grid), offset_grid(signed=grid.signed), gate_grid(signed=grid.signed)
    three = integer_arithmetic.centred(torch.tensor(HARD_SIGMOID_OFFSET), shift)
    gated = integer_arithmetic.centred(integer_arithmetic.add(codes, three, (grid, shift), gate), gate)
    run.store(node, [integer_arithmetic.multiply(codes, gated, (grid, gate.rescaled(1.0 / 6.0)), out)], op)


HARD_SWISH = Form("hardswish", _emit, _simulate)
"""An addition and a multiplication."""
