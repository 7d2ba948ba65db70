"""A clamped straight line in the place of a sigmoid: the codes of its input, clamped, read with another scale and zero point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import torch

from converter.forms.form import Form, cost_as
from converter.plan.records import OpPlan, approximation_of
from converter.quantization import integer_arithmetic
from converter.targets.costs import PIECEWISE_LINEAR_KIND
from converter.transforms.sigmoids.piecewise_linear import approximation_params, clip_limits

if TYPE_CHECKING:
    from converter.emit.builder import Writer
    from converter.planning.validate import Check
    from converter.verify.simulation import Run

__all__ = ["PIECEWISE_LINEAR"]


def _emit(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    x, output = node.inputs[0], node.outputs[0]
    assert x is not None
    writer.clip_codes(output, x, clip_limits(writer.params_of(output), approximation_of(op)))


def _simulate(run: Run, node: ir.Node, op: OpPlan) -> None:
    x, grid, out = run.read_codes(node.inputs[0]), run.params_of(node.inputs[0]), run.params_of(node.outputs[0])
    assert x is not None and grid is not None and out is not None
    codes = torch.clamp(integer_arithmetic.centred(x, grid) + grid.zero_point[0], *clip_limits(out, approximation_of(op)))
    run.made[node.outputs[0]] = (codes - out.zero_point[0]) * torch.tensor(out.scale[0], dtype=torch.float32)


def _check(check: Check, node: ir.Node, op: OpPlan) -> None:
    ends = [check.plan.tensors.get(str(v.name)) for v in (node.inputs[0], node.outputs[0]) if v is not None]
    grids = [tensor_plan.params for tensor_plan in ends if tensor_plan is not None and tensor_plan.params is not None]
    slope, offset, low, high = op.coefficients if len(op.coefficients) == 4 else (0.0, 0.0, 0.0, 0.0)
    if op.writes != "codes" or not (0.05 <= slope <= 1.0 and 0.0 <= offset <= 1.0 and 0.0 <= low < high <= 1.0):
        raise check.refuse(f"the line of operator '{node.name}' is a slope of 0.05 to 1, an offset, and a low and a high end within 0 to 1")
    if len(grids) == 2 and grids[1] != approximation_params(grids[0], approximation_of(op)):
        raise check.refuse(
            f"tensor '{node.outputs[0].name}' must have the grid that the line of operator '{node.name}' makes of its input's"
        )


PIECEWISE_LINEAR = Form("piecewise_linear", _emit, _simulate, _check, cost=cost_as(PIECEWISE_LINEAR_KIND))
"""The line is in the scale and the zero point; see :mod:`converter.transforms.sigmoids.piecewise_linear`."""
