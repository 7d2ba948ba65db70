"""Operators that the runtime replaces one for one: Add, Mul, GlobalAveragePool, Sigmoid, LeakyRelu."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.calibration.observer import CalibrationStatistics
from converter.forms.float_only import STEPS, reach
from converter.forms.form import CONTAINER_BITS, Context, Earlier, Form, SupportedForm, UnsupportedForm
from converter.forms.rescale import RESCALE
from converter.graph.queries import constant, data_inputs, relabel_factor, relabel_offset
from converter.plan.choice import Constant
from converter.plan.records import OpPlan
from converter.quantization import integer_arithmetic
from converter.transforms.equalization.apply import inserted_factors

if TYPE_CHECKING:
    from converter.verify.simulation import Run

__all__ = ["ELEMENTWISE", "offer_binary", "offer_global_average", "offer_unary"]

_LARGEST_MULTIPLIER = 4.0
"""Of the integer GlobalAveragePool. The runtime fails at 256; methods may bring the grids apart by some ten times."""


def offer_unary(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
    """An operator of one input whose kernel reads and writes codes."""
    return SupportedForm("pointwise", {}, False, *context.cost(node))


def offer_binary(node: ir.Node, context: Context, earlier: Earlier) -> SupportedForm | UnsupportedForm:
    """A sum or a product of two tensors, one of them constant perhaps."""
    if inserted_factors(node) is not None:
        return UnsupportedForm("its factors become scales of the Q behind it", final=True)
    if relabel_factor(node) is not None:
        return SupportedForm("relabel", {}, False, *context.cost(node, RESCALE))
    if relabel_offset(node) is not None and _of_pixel_codes(node, earlier):
        return SupportedForm("relabel", {}, False, *context.cost(node, RESCALE))
    constants = {}
    for index, value in enumerate(node.inputs):
        array = constant(value)
        if array is not None:
            if node.op_type == "Add" and _drowns(array, node, context.seen):
                return UnsupportedForm(
                    "its constant, a mask perhaps, is so large that no step of the grid would be left for the other operand", final=True
                )
            constants[index] = Constant(array, None, CONTAINER_BITS, context.target.signed_activations)
    return SupportedForm("pointwise", constants, False, *context.cost(node))


def _of_pixel_codes(node: ir.Node, earlier: Earlier) -> bool:
    ((_, value),) = data_inputs(node)
    producer = value.producer()
    return producer is not None and isinstance(earlier.get(str(producer.name)), SupportedForm)


def _drowns(array: npt.NDArray[Any], node: ir.Node, seen: CalibrationStatistics) -> bool:
    ((_, value),) = data_inputs(node)
    stats = seen.tensors[str(value.name)]
    return bool(np.abs(array).max(initial=0.0) > STEPS * reach(stats) > 0.0)


def offer_global_average(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
    """Means over maps, where they are not too small beside what is averaged."""
    ((_index, value),) = data_inputs(node)
    before, after = (context.seen.tensors[str(v.name)] for v in (value, node.outputs[0]))
    averaged = int(np.prod(before.shape[2:]))
    if reach(before) > _LARGEST_MULTIPLIER * reach(after) * averaged:
        return UnsupportedForm("its averages are too small beside its inputs for the integer kernel's multiplier")
    return SupportedForm("pointwise", {}, False, *context.cost(node))


def _simulate(run: Run, node: ir.Node, op: OpPlan) -> None:
    inputs, grids = run.integer_inputs(node, op)
    out = run.written(node)
    if node.op_type in ("Add", "Mul") and out is not None:
        (a, b), (left, right) = inputs, grids
        assert a is not None and b is not None and left is not None and right is not None
        combine = integer_arithmetic.add if node.op_type == "Add" else integer_arithmetic.multiply
        outputs = [combine(integer_arithmetic.centred(a, left), integer_arithmetic.centred(b, right), (left, right), out)]
    elif node.op_type == "GlobalAveragePool" and out is not None:
        x, grid = inputs[0], grids[0]
        assert x is not None and grid is not None
        outputs = [integer_arithmetic.global_average(integer_arithmetic.centred(x, grid), grid, out)]
    else:
        outputs = run.apply(node, inputs)
    run.store(node, outputs, op)


ELEMENTWISE = Form("pointwise", simulate=_simulate)
"""Any operator that the runtime replaces one for one."""
