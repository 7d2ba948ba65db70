"""Layers with constant weights (Conv, Gemm, MatMul), and products of two computed tensors.

Sums of int8 products in int32; the bias is added to them with their scale. Weights are stored as int8, biases as int32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from converter.forms.float_only import weights_vanish
from converter.forms.form import Context, Earlier, Form, SupportedForm, UnsupportedForm
from converter.graph.macs import macs_of
from converter.graph.queries import attributes, constant
from converter.plan.choice import Constant
from converter.plan.constants import bias_of, codes_from_text, weight_codes
from converter.plan.records import OpPlan
from converter.quantization import integer_arithmetic
from converter.quantization.bias import bias_scale, integer_bias
from converter.quantization.parameters import QuantParams, dequantize
from converter.torch_backend import ops as torch_ops
from converter.transforms.nonuniform.marks import reads_logarithms

if TYPE_CHECKING:
    from converter.emit.builder import Writer
    from converter.planning.validate import Check
    from converter.verify.simulation import Run

__all__ = ["PRODUCT", "WEIGHTED", "offer_conv", "offer_linear"]

_TOO_SMALL = "some of its weights are too small for any scale"


def offer_conv(node: ir.Node, context: Context, _: Earlier) -> SupportedForm | UnsupportedForm:
    """A convolution in one or two dimensions with constant weights."""
    weight = constant(node.inputs[1])
    macs = macs_of(node, context.shapes)
    if weight is None:
        return UnsupportedForm("its weights are computed", macs)
    if len(node.inputs) > 2 and node.inputs[2] is not None and constant(node.inputs[2]) is None:
        return UnsupportedForm("its bias is computed", macs)
    if weight.ndim not in (3, 4):
        return UnsupportedForm(f"no integer kernel for a convolution in {weight.ndim - 2} dimensions", macs)
    if weights_vanish(weight.reshape(len(weight), -1), node, context.seen):
        return UnsupportedForm(_TOO_SMALL, macs)
    depthwise = weight.shape[1] == 1 and attributes(node).get("group", 1) == weight.shape[0]
    widest = context.target.depthwise_weight_bits if depthwise else context.dense_weight_bits
    float_cost, integer_cost = context.cost(node)
    weights = Constant(weight, 0, min(context.weight_bits, widest))
    return SupportedForm("weighted", {1: weights}, False, float_cost, integer_cost, macs)


def offer_linear(node: ir.Node, context: Context, earlier: Earlier) -> SupportedForm | UnsupportedForm:
    """A matrix product with a constant matrix on the right, or of two computed tensors."""
    weight = constant(node.inputs[1])
    macs = macs_of(node, context.shapes)
    if weight is None:
        return _offer_product(node, context) if node.op_type == "MatMul" else UnsupportedForm("its weights are computed", macs)
    if weight.ndim != 2:
        return UnsupportedForm(f"its constant operand has {weight.ndim} dimensions instead of 2", macs)
    attrs = attributes(node)
    if attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) != 1.0 or attrs.get("transA", 0):
        return UnsupportedForm("the integer kernel takes no alpha, beta or transposed input", macs)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = constant(node.inputs[2])
        if bias is None:
            return UnsupportedForm("its bias is computed", macs)
        if bias.ndim != 1:
            return UnsupportedForm("its bias is not one number per output", macs)
    axis = 0 if attrs.get("transB", 0) else 1
    if weights_vanish(weight if axis == 0 else weight.T, node, context.seen):
        return UnsupportedForm(_TOO_SMALL, macs)
    float_cost, integer_cost = context.cost(node)
    weights = Constant(weight, axis, min(context.weight_bits, context.dense_weight_bits))
    return SupportedForm("weighted", {1: weights}, True, float_cost, integer_cost, macs)


def _offer_product(node: ir.Node, context: Context) -> SupportedForm | UnsupportedForm:
    macs = macs_of(node, context.shapes)
    if constant(node.inputs[0]) is not None:
        return UnsupportedForm("its left operand is a constant", macs)
    if reads_logarithms(node):
        return UnsupportedForm("an operand lies on a logarithmic grid, whose steps are not equal", macs)
    if any(v is None or len(context.seen.tensors[str(v.name)].shape) < 2 for v in node.inputs):
        return UnsupportedForm("an operand is not a matrix", macs)
    float_cost, integer_cost = context.cost(node)
    return SupportedForm("product", {}, True, float_cost, integer_cost, macs)


def _emit(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    grids, bias = dict(op.constants), None
    if 1 in grids:
        assert node.inputs[0] is not None
        bias, grids[1] = _emit_bias(writer, node, op, writer.codes[node.inputs[0]].params, grids[1])
    writer.copy_node(node, writer.integer_inputs(node, op, grids, {} if bias is None else {2: bias}))
    writer.encode_outputs(node, op)


def _emit_bias(writer: Writer, node: ir.Node, op: OpPlan, x_grid: QuantParams, weights: QuantParams) -> tuple[ir.Value | None, QuantParams]:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    array = bias_of(op, constant(value))
    if value is None or array is None:
        return None, weights
    weights, codes, scale = integer_bias(array, x_grid.scale[0], weights)
    return writer.new.bias(codes, scale, f"{node.name}_{value.name}"), weights


def _simulate(run: Run, node: ir.Node, op: OpPlan) -> None:
    left, right = node.inputs[0], node.inputs[1]
    x, x_grid = run.read_codes(left), run.params_of(left)
    assert x is not None and x_grid is not None and right is not None
    bias = bias_of(op, constant(node.inputs[2])) if len(node.inputs) > 2 else None
    codes: npt.NDArray[Any] | None = None
    if 1 in op.constants:
        array, w_grid = constant(right), op.constants[1]
        assert array is not None
        if bias is not None:
            w_grid, codes, _ = integer_bias(bias, x_grid.scale[0], w_grid)
        w = torch.from_numpy(dequantize(weight_codes(op, 1, array, w_grid), w_grid))
    else:
        computed, grid = run.read_codes(right), run.params_of(right)
        assert computed is not None and grid is not None
        w, w_grid = computed, grid

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch_ops.apply(node.op_type, [a, b], attributes(node))[0]

    left_codes, right_codes = integer_arithmetic.centred(x, x_grid), integer_arithmetic.centred(w, w_grid)
    # a sum is at most the largest input code times the absolute weights of one output channel
    axis = 0 if node.op_type == "Conv" or attributes(node).get("transB", 0) else right_codes.ndim - 1
    rows = right_codes.abs().movedim(axis, 0).reshape(right_codes.shape[axis], -1).sum(1)
    largest = float(left_codes.abs().max() * rows.max()) if left_codes.numel() and rows.numel() else 0.0
    sums = integer_arithmetic.sum_of_products(kernel, left_codes, right_codes, largest)
    shape = (1, -1, *[1] * (sums.ndim - 2)) if node.op_type == "Conv" else (1,) * (sums.ndim - 1) + (-1,)
    scale = torch.from_numpy(bias_scale(x_grid.scale[0], w_grid.scale)).reshape(shape)
    if codes is not None:
        sums = sums + torch.from_numpy(codes.astype(np.float64)).reshape(shape)
    out = run.written(node)
    multiplier = scale if out is None else scale / float(np.float32(out.scale[0]))
    run.store(node, [integer_arithmetic.requantize(sums, multiplier, out, scale)], op)


def _check(check: Check, node: ir.Node, op: OpPlan) -> None:
    """Codes and biases that the plan prescribes."""
    if op.coefficients:
        raise check.refuse(f"operator '{node.name}' has no gate")
    if op.codes:
        array, grid = constant(node.inputs[1]), op.constants[1]
        assert array is not None
        try:
            codes = codes_from_text(op.codes, array.shape)
        except ValueError as error:
            raise check.refuse(f"the codes of operator '{node.name}' do not fit: {error}") from None
        if codes.size and not grid.qmin <= int(codes.min()) <= int(codes.max()) <= grid.qmax:
            raise check.refuse(f"a code of operator '{node.name}' lies outside {grid.qmin}..{grid.qmax}")
    if op.bias:
        bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if bias is None or bias.size != len(op.bias):
            raise check.refuse(f"operator '{node.name}' has {0 if bias is None else bias.size} biases, the plan gives {len(op.bias)}")


WEIGHTED = Form("weighted", _emit, _simulate, _check)
"""A layer with constant weights."""

PRODUCT = Form("product", _emit, _simulate)
"""A product of two computed tensors."""
