"""Layers with constant weights (Conv, Gemm, MatMul), and products of tensors, computed or constant, with a grid each.

Sums of int8 products in int32; the bias is added to them with their scale. Weights are stored as int8, biases as int32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch

from converter.forms.convolved import emit_columns, emit_rows, grid_and_bias, takes_columns, written_shape
from converter.forms.float_only import weights_vanish
from converter.forms.form import CONTAINER_BITS, Context, Earlier, Form, SupportedForm, UnsupportedForm, cost_as
from converter.graph.macs import macs_of
from converter.graph.marks import AVERAGE
from converter.graph.queries import attributes, constant, data_inputs
from converter.plan.choice import Constant
from converter.plan.constants import codes_from_text, weight_codes
from converter.plan.records import OpPlan
from converter.quantization import integer_arithmetic
from converter.quantization.bias import bias_scale
from converter.quantization.parameters import QuantParams, dequantize
from converter.targets.costs import COLUMN_CONVOLUTION_KIND, LINEAR_CONVOLUTION_KIND
from converter.torch_backend import ops as torch_ops
from converter.transforms.nonuniform.marks import reads_logarithms

if TYPE_CHECKING:
    from converter.emit.builder import Writer
    from converter.planning.validate import Check
    from converter.verify.simulation import Run

__all__ = ["COLUMN_CONVOLUTION", "LINEAR_CONVOLUTION", "PRODUCT", "WEIGHTED", "offer_conv", "offer_linear"]

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
    wanted = CONTAINER_BITS if AVERAGE in node.metadata_props else context.weight_bits
    weights = Constant(weight, 0, min(wanted, widest))
    entry = SupportedForm("weighted", {1: weights}, False, float_cost, integer_cost, macs)
    cost = context.cost(node, COLUMN_CONVOLUTION)[1]
    return replace(entry, code_form="column_convolution", code_cost=cost) if cost < integer_cost and takes_columns(node) else entry


def offer_linear(node: ir.Node, context: Context, earlier: Earlier) -> SupportedForm | UnsupportedForm:
    """A matrix product with a constant matrix on the right, or of any two tensors."""
    weight = constant(node.inputs[1])
    macs = macs_of(node, context.shapes)
    if node.op_type == "MatMul" and (weight is None or weight.ndim != 2):
        return _offer_product(node, context)
    if weight is None:
        return UnsupportedForm("its weights are computed", macs)
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
    entry = SupportedForm("weighted", {1: weights}, True, float_cost, integer_cost, macs)
    _, cost = context.cost(node, LINEAR_CONVOLUTION)
    return replace(entry, code_form="linear_convolution", code_cost=cost) if cost < integer_cost and written_shape(node) else entry


def _offer_product(node: ir.Node, context: Context) -> SupportedForm | UnsupportedForm:
    """Of two tensors, one of them constant perhaps: a matrix on the left, or a batch of matrices."""
    macs = macs_of(node, context.shapes)
    arrays = {index: array for index, value in enumerate(node.inputs) if (array := constant(value)) is not None}
    if reads_logarithms(node):
        return UnsupportedForm("an operand lies on a logarithmic grid, whose steps are not equal", macs)
    ranks = [array.ndim for array in arrays.values()] + [len(context.seen.tensors[str(v.name)].shape) for _, v in data_inputs(node)]
    if min(ranks) < 2:
        return UnsupportedForm("an operand is not a matrix", macs)
    constants = {index: Constant(array, None, CONTAINER_BITS, context.target.signed_activations) for index, array in arrays.items()}
    float_cost, integer_cost = context.cost(node)
    return SupportedForm("product", constants, True, float_cost, integer_cost, macs)


def _emit(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    assert node.inputs[0] is not None
    weights, codes, scale = grid_and_bias(node, op, writer.codes[node.inputs[0]].params)
    bias = None if codes is None or node.inputs[2] is None else writer.new.bias(codes, scale, f"{node.name}_{node.inputs[2].name}")
    writer.copy_node(node, writer.integer_inputs(node, op, {**op.constants, 1: weights}, {} if bias is None else {2: bias}))
    writer.encode_outputs(node, op)


def _simulate(run: Run, node: ir.Node, op: OpPlan) -> None:
    x, x_grid = run.read_codes(node.inputs[0]), run.params_of(node.inputs[0])
    array = constant(node.inputs[1])
    assert x is not None and x_grid is not None and array is not None
    w_grid, codes, _ = grid_and_bias(node, op, x_grid)
    w = torch.from_numpy(dequantize(weight_codes(op, 1, array, w_grid), w_grid))
    sums = _sums(node, (x, w), (x_grid, w_grid))
    shape = (1, -1, *[1] * (sums.ndim - 2)) if node.op_type == "Conv" else (1,) * (sums.ndim - 1) + (-1,)
    if codes is not None:
        sums = sums + torch.from_numpy(codes.astype(np.float64)).reshape(shape)
    _store(run, node, op, sums, torch.from_numpy(bias_scale(x_grid.scale[0], w_grid.scale)).reshape(shape))


def _simulate_product(run: Run, node: ir.Node, op: OpPlan) -> None:
    (x, y), (x_grid, y_grid) = run.integer_inputs(node, op)
    assert x is not None and y is not None and x_grid is not None and y_grid is not None
    sums = _sums(node, (x, y), (x_grid, y_grid))
    _store(run, node, op, sums, torch.from_numpy(bias_scale(x_grid.scale[0], y_grid.scale)))


def _sums(node: ir.Node, operands: tuple[torch.Tensor, torch.Tensor], grids: tuple[QuantParams, QuantParams]) -> torch.Tensor:
    """Whole sums of products of codes, each less its zero point; float64."""

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch_ops.apply(node.op_type, [a, b], attributes(node))[0]

    left, right = (integer_arithmetic.centred(x, grid) for x, grid in zip(operands, grids, strict=True))
    # a sum is at most the largest input code times the absolute weights of one output channel
    axis = 0 if node.op_type == "Conv" or attributes(node).get("transB", 0) else right.ndim - 1
    rows = right.abs().movedim(axis, 0).reshape(right.shape[axis], -1).sum(1)
    largest = float(left.abs().max() * rows.max()) if left.numel() and rows.numel() else 0.0
    return integer_arithmetic.sum_of_products(kernel, left, right, largest)


def _store(run: Run, node: ir.Node, op: OpPlan, sums: torch.Tensor, scale: torch.Tensor) -> None:
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

LINEAR_CONVOLUTION = Form("linear_convolution", emit_rows, _simulate, _check, cost=cost_as(LINEAR_CONVOLUTION_KIND))
"""A product with a constant matrix, as a convolution of size 1."""

COLUMN_CONVOLUTION = Form("column_convolution", emit_columns, _simulate, _check, cost=cost_as(COLUMN_CONVOLUTION_KIND))
"""A convolution of an image, as one of four columns at once."""

PRODUCT = Form("product", simulate=_simulate_product)
"""A product of two tensors, each on one grid."""
