"""Simulate: run a plan in torch, with every grid applied in float. The reference that the emitted model must match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from converter.graph.operator_sets import LAYERS
from converter.graph.queries import attributes, constant
from converter.plan.constants import bias_of, weight_codes
from converter.plan.records import OpPlan, Plan, gate_of, ramp_of
from converter.quantization import integer_arithmetic
from converter.quantization.bias import bias_scale, integer_bias
from converter.quantization.gated_activations import HARD_SIGMOID_OFFSET, gate_grid, sigmoid_grid
from converter.quantization.parameters import Grid, dequantize, fake_quantize
from converter.torch_backend import ops as torch_ops
from converter.torch_backend.float_regions import Region, order_by_regions
from converter.torch_backend.runtime_kernels import Sessions, runtime_operator, runtime_region
from converter.transforms.equalization.apply import channel_grid, inserted_factors
from converter.transforms.sigmoids.piecewise_linear import ramp_limits

__all__ = ["fake_quantize_tensor", "simulate", "simulate_all"]

Tensor = torch.Tensor


def fake_quantize_tensor(x: Tensor, grid: Grid) -> Tensor:
    """The nearest numbers on a grid, rounding half to even; float32, same shape."""
    scale, zero_point = (torch.from_numpy(a) for a in grid.per_channel(x.ndim))
    codes = torch.clamp(torch.round(x / scale) + zero_point, grid.qmin, grid.qmax)
    return (codes - zero_point) * scale


def _quantize_per_channel(x: Tensor, grid: Grid, read_as: Grid) -> Tensor:
    """Codes on a grid with one scale per channel, read with the single scale of another; float32, same shape."""
    scale, zero_point = (torch.from_numpy(a) for a in grid.per_channel(x.ndim))
    codes = torch.clamp(torch.round(x / scale) + zero_point, grid.qmin, grid.qmax)
    return (codes - zero_point) * torch.tensor(read_as.scale[0], dtype=torch.float32)


@torch.no_grad()
def simulate(
    model: ir.Model,
    plan: Plan | None,
    feed: Mapping[str, npt.NDArray[Any]],
    sessions: Sessions | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Run the canonical model on one sample, with the plan's grids, or in plain float without a plan.

    Args:
        model: canonical float model.
        plan: settled for this model, or None.
        feed: inputs by name.
        sessions: runs the float operators in ONNX Runtime, which joins them as in the emitted model, and keeps its sessions here;
            None for torch.

    Returns:
        outputs by name, each of its own type; constants among them.

    Raises:
        torch_ops.UnknownOperatorError: an operator has no rule.
    """
    run = _Run(plan, sessions)
    run.feed(model, feed)
    run.by_regions(model)
    return {str(v.name): _array(run.read(v)) for v in model.graph.outputs}


@torch.no_grad()
def simulate_all(
    model: ir.Model,
    plan: Plan | None,
    feed: Mapping[str, npt.NDArray[Any]],
    sessions: Sessions | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Every tensor of :func:`simulate` by name, in the order in which they come to be; all that is read counts, constants too.

    What no integer operator writes as codes is what a float reader sees. Every operator runs by itself.
    """
    run = _Run(plan, sessions)
    run.feed(model, feed)
    run.one_by_one(n for n in model.graph if n.op_type != "Constant")
    return {str(v.name): _array(x) for v, x in run.made.items() if isinstance(x, Tensor) and v.name}


def _array(x: Tensor | None) -> npt.NDArray[Any]:
    assert x is not None
    array: npt.NDArray[Any] = x.numpy()
    return array


class _Run:
    """Values of one run: ``made`` is what a float reader sees."""

    def __init__(self, plan: Plan | None, sessions: Sessions | None) -> None:
        self.plan = plan
        self.sessions = sessions
        self.made: dict[ir.Value, Tensor] = {}

    def feed(self, model: ir.Model, feed: Mapping[str, npt.NDArray[Any]]) -> None:
        for value in model.graph.inputs:
            self.made[value] = torch.from_numpy(np.array(feed[str(value.name)]))

    def op(self, node: ir.Node) -> OpPlan | None:
        return self.plan.ops.get(str(node.name)) if self.plan is not None else None

    def by_regions(self, model: ir.Model) -> None:
        for item in order_by_regions(model, self.in_float):
            if not isinstance(item, Region):
                self.one_by_one([item])
            elif self.sessions is None:
                self.one_by_one(item.nodes)
            else:
                self.made.update(zip(item.outputs, runtime_region(item, [self.read(v) for v in item.inputs], self.sessions), strict=True))

    def in_float(self, node: ir.Node) -> bool:
        """It reads and writes plain numbers, and is there in the emitted model."""
        op = self.op(node)
        return (op is None or (op.runs == "float" and op.writes == "float")) and inserted_factors(node) is None

    def one_by_one(self, nodes: Iterable[ir.Node]) -> None:
        for node in nodes:
            op = self.op(node)
            if op is not None and op.runs == "integer":
                self.integer(node, op)
            else:
                self.floating(node, op)

    def grid(self, value: ir.Value) -> Grid | None:
        fate = self.plan.tensors.get(str(value.name)) if self.plan is not None else None
        return None if fate is None else fate.grid

    def read(self, value: ir.Value | None) -> Tensor | None:
        if value is None:
            return None
        if value not in self.made:
            array = constant(value)
            if array is None:
                raise torch_ops.UnknownOperatorError(f"tensor '{value.name}' has no value")
            try:
                self.made[value] = torch.from_numpy(np.array(array))
            except TypeError as error:  # text, or a type of fewer bits than a byte
                raise torch_ops.UnknownOperatorError(f"constant '{value.name}' of type {array.dtype}") from error
        return self.made[value]

    def read_codes(self, value: ir.Value | None) -> Tensor | None:
        """What an integer operator sees: the tensor on its grid, if it has one."""
        x = self.read(value)
        grid = self.grid(value) if value is not None else None
        node = value.producer() if value is not None else None
        if node is not None and grid is not None and inserted_factors(node) is not None:
            source = self.read(node.inputs[0])
            assert source is not None
            return _quantize_per_channel(source, channel_grid(node, grid), grid)
        return x if x is None or grid is None else fake_quantize_tensor(x, grid)

    def store(self, node: ir.Node, outputs: list[Tensor], op: OpPlan | None) -> None:
        for value, x in zip(node.outputs, outputs, strict=False):
            grid = self.grid(value) if op is not None and op.writes == "codes" else None
            self.made[value] = x if grid is None else fake_quantize_tensor(x, grid)

    def floating(self, node: ir.Node, op: OpPlan | None) -> None:
        read = self.read_codes if op is not None and op.reads_codes else self.read
        self.store(node, self.compute(node, [read(v) for v in node.inputs]), op)

    def compute(self, node: ir.Node, inputs: list[Tensor | None]) -> list[Tensor]:
        if self.sessions is None:
            return torch_ops.apply(node.op_type, inputs, attributes(node))
        constants = [i for i, v in enumerate(node.inputs) if constant(v) is not None]
        return runtime_operator(node.op_type, inputs, attributes(node), len(node.outputs), constants=constants, sessions=self.sessions)

    def integer(self, node: ir.Node, op: OpPlan) -> None:
        if op.op_type == "HardSwish":
            x = self.read_codes(node.inputs[0])
            grid = self.grid(node.inputs[0]) if node.inputs[0] is not None else None
            assert x is not None and grid is not None
            gate = fake_quantize_tensor(x + HARD_SIGMOID_OFFSET, gate_grid(signed=grid.signed))
            self.store(node, [x * (gate / 6.0)], op)
            return
        if op.op_type == "Sigmoid" and op.gate:
            self._ramp(node, op)
            return
        if op.op_type == "Gelu":
            self.store(node, [self._gelu(node, op)], op)
            return
        if op.op_type in LAYERS:
            self.store(node, [self._products(node, op)], op)
            return
        inputs = [self.read_codes(v) for v in node.inputs]
        grids = [self.grid(v) if v is not None else None for v in node.inputs]
        for index, grid in op.constants.items():
            array = constant(node.inputs[index])
            assert array is not None
            inputs[index], grids[index] = torch.from_numpy(fake_quantize(array, grid)), grid
        out = self._written(node)
        fate = self.plan.tensors[str(node.outputs[0].name)].fate if self.plan is not None else ""
        if op.op_type in ("Add", "Mul") and out is not None and fate != "derived":
            (a, b), (left, right) = inputs, grids
            assert a is not None and b is not None and left is not None and right is not None
            combine = integer_arithmetic.add if op.op_type == "Add" else integer_arithmetic.multiply
            result = combine(integer_arithmetic.centred(a, left), integer_arithmetic.centred(b, right), (left, right), out)
            self.store(node, [result], op)
            return
        if op.op_type == "GlobalAveragePool" and out is not None:
            x, grid = inputs[0], grids[0]
            assert x is not None and grid is not None
            self.store(node, [integer_arithmetic.global_average(integer_arithmetic.centred(x, grid), grid, out)], op)
            return
        try:
            outputs = torch_ops.apply(node.op_type, inputs, attributes(node))
        except torch_ops.UnknownOperatorError:
            outputs = self.compute(node, inputs)
        self.store(node, outputs, op)

    def _ramp(self, node: ir.Node, op: OpPlan) -> None:
        """The codes of the input, clamped, read on another grid."""
        x, grid, out = self.read_codes(node.inputs[0]), self.grid(node.inputs[0]) if node.inputs[0] else None, self.grid(node.outputs[0])
        assert x is not None and grid is not None and out is not None
        codes = torch.clamp(integer_arithmetic.centred(x, grid) + grid.zero_point[0], *ramp_limits(out, ramp_of(op)))
        self.made[node.outputs[0]] = (codes - out.zero_point[0]) * torch.tensor(out.scale[0], dtype=torch.float32)

    def _gelu(self, node: ir.Node, op: OpPlan) -> Tensor:
        x, grid = self.read_codes(node.inputs[0]), self.grid(node.inputs[0]) if node.inputs[0] is not None else None
        gate, out = gate_of(op), self._written(node)
        assert x is not None and grid is not None and out is not None
        codes = integer_arithmetic.centred(x, grid)
        steep = codes * float(np.float32(grid.scale[0] * gate.slope))
        opened = integer_arithmetic.centred(
            fake_quantize_tensor(torch.sigmoid(steep), sigmoid_grid(signed=grid.signed)), sigmoid_grid(signed=grid.signed)
        )
        return integer_arithmetic.multiply(codes, opened - gate.base, (grid, gate.read_grid(signed=grid.signed)), out)

    def _written(self, node: ir.Node) -> Grid | None:
        """The grid of the codes that an integer operator writes, its own or that of the clamp behind it."""
        output = node.outputs[0]
        op = self.plan.ops[str(node.name)] if self.plan is not None else None
        if op is not None and op.writes == "inside":
            return self.grid(output.consumers()[0].outputs[0])
        return self.grid(output) if op is not None and op.writes == "codes" else None

    def _products(self, node: ir.Node, op: OpPlan) -> Tensor:
        left, right = node.inputs[0], node.inputs[1]
        x, x_grid = self.read_codes(left), self.grid(left) if left is not None else None
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
            computed, grid = self.read_codes(right), self.grid(right)
            assert computed is not None and grid is not None
            w, w_grid = computed, grid

        def kernel(a: Tensor, b: Tensor) -> Tensor:
            return torch_ops.apply(node.op_type, [a, b], attributes(node))[0]

        left_codes, right_codes = integer_arithmetic.centred(x, x_grid), integer_arithmetic.centred(w, w_grid)
        # a sum is at most the largest input code times the absolute weights of one output channel
        axis = 0 if op.op_type == "Conv" or attributes(node).get("transB", 0) else right_codes.ndim - 1
        rows = right_codes.abs().movedim(axis, 0).reshape(right_codes.shape[axis], -1).sum(1)
        largest = float(left_codes.abs().max() * rows.max()) if left_codes.numel() and rows.numel() else 0.0
        sums = integer_arithmetic.sum_of_products(kernel, left_codes, right_codes, largest)
        shape = (1, -1, *[1] * (sums.ndim - 2)) if op.op_type == "Conv" else (1,) * (sums.ndim - 1) + (-1,)
        scale = torch.from_numpy(bias_scale(x_grid.scale[0], w_grid.scale)).reshape(shape)
        if codes is not None:
            sums = sums + torch.from_numpy(codes.astype(np.float64)).reshape(shape)
        out = self._written(node)
        multiplier = scale if out is None else scale / float(np.float32(out.scale[0]))
        return integer_arithmetic.requantize(sums, multiplier, out, scale)
