"""Simulate: run a plan in torch, with every grid applied in float. The reference that the emitted model must match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from converter.forms.registry import FORMS
from converter.graph.queries import attributes, constant
from converter.plan.constants import stored_numbers
from converter.plan.records import OpPlan, Plan
from converter.quantization.parameters import QuantParams, fake_quantize
from converter.torch_backend import ops as torch_ops
from converter.torch_backend.float_regions import Region, order_by_regions, region_constants
from converter.torch_backend.runtime_kernels import Sessions, runtime_operator, runtime_region
from converter.transforms.equalization.apply import channel_grid, inserted_factors

__all__ = ["fake_quantize_tensor", "simulate", "simulate_all"]

Tensor = torch.Tensor


def fake_quantize_tensor(x: Tensor, grid: QuantParams, read_scale: float | None = None) -> Tensor:
    """The nearest numbers on a grid, rounding half to even, or what its codes stand for with another scale; float32, same shape."""
    scale, zero_point = (torch.from_numpy(a) for a in grid.per_channel(x.ndim))
    codes = torch.clamp(torch.round(x / scale) + zero_point, grid.qmin, grid.qmax)
    return (codes - zero_point) * (scale if read_scale is None else torch.tensor(read_scale, dtype=torch.float32))


@torch.no_grad()
def simulate(
    model: ir.Model,
    plan: Plan | None,
    feed: Mapping[str, npt.NDArray[Any]],
    sessions: Sessions | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Run the canonical model on one sample, with the plan's grids, or in plain float without a plan.

    Args:
        plan: settled for this model, or None.
        feed: inputs by name.
        sessions: runs the float operators in ONNX Runtime, which joins them as in the emitted model, and keeps its sessions here;
            None for torch.

    Returns:
        outputs by name, each of its own type; constants among them.

    Raises:
        torch_ops.UnknownOperatorError: an operator has no rule.
    """
    run = Run(plan, sessions)
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
    run = Run(plan, sessions)
    run.feed(model, feed)
    run.one_by_one(n for n in model.graph if n.op_type != "Constant")
    return {str(v.name): _array(x) for v, x in run.made.items() if isinstance(x, Tensor) and v.name}


def _array(x: Tensor | None) -> npt.NDArray[Any]:
    assert x is not None
    array: npt.NDArray[Any] = x.numpy()
    return array


class Run:
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
                inputs, others = [self.read(v) for v in item.inputs], self.stored_constants(item)
                self.made.update(zip(item.outputs, runtime_region(item, inputs, self.sessions, others), strict=True))

    def stored_constants(self, region: Region) -> dict[str, npt.NDArray[Any]]:
        """Those of a region's constants that are stored as codes, as the numbers that these stand for."""
        stored = {} if self.plan is None else self.plan.stored
        arrays = {name: stored_numbers(self.plan, v) for name, v in region_constants(region).items() if name in stored}
        return {name: array for name, array in arrays.items() if array is not None}

    def in_float(self, node: ir.Node) -> bool:
        """It reads and writes plain numbers, and is there in the emitted model."""
        op = self.op(node)
        return (op is None or (op.runs == "float" and op.writes == "float")) and inserted_factors(node) is None

    def one_by_one(self, nodes: Iterable[ir.Node]) -> None:
        for node in nodes:
            op = self.op(node)
            if op is not None and op.runs == "integer":
                FORMS[op.form].simulate(self, node, op)
            else:
                self.floating(node, op)

    def params_of(self, value: ir.Value | None) -> QuantParams | None:
        tensor_plan = self.plan.tensors.get(str(value.name)) if self.plan is not None and value is not None else None
        return None if tensor_plan is None else tensor_plan.params

    def read(self, value: ir.Value | None) -> Tensor | None:
        if value is None:
            return None
        if value not in self.made:
            array = stored_numbers(self.plan, value)
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
        grid = self.params_of(value) if value is not None else None
        node = value.producer() if value is not None else None
        if node is not None and grid is not None and inserted_factors(node) is not None:
            source = self.read(node.inputs[0])
            assert source is not None
            return fake_quantize_tensor(source, channel_grid(node, grid), grid.scale[0])
        return x if x is None or grid is None else fake_quantize_tensor(x, grid)

    def store(self, node: ir.Node, outputs: list[Tensor], op: OpPlan | None) -> None:
        for value, x in zip(node.outputs, outputs, strict=False):
            grid = self.params_of(value) if op is not None and op.writes == "codes" else None
            self.made[value] = x if grid is None else fake_quantize_tensor(x, grid)

    def floating(self, node: ir.Node, op: OpPlan | None) -> None:
        read = self.read_codes if op is not None and op.reads_codes else self.read
        self.store(node, self.compute(node, [read(v) for v in node.inputs]), op)

    def compute(self, node: ir.Node, inputs: list[Tensor | None]) -> list[Tensor]:
        if self.sessions is None:
            return torch_ops.apply(node.op_type, inputs, attributes(node))
        constants = [i for i, v in enumerate(node.inputs) if constant(v) is not None]
        return runtime_operator(node.op_type, inputs, attributes(node), len(node.outputs), constants=constants, sessions=self.sessions)

    def integer_inputs(self, node: ir.Node, op: OpPlan) -> tuple[list[Tensor | None], list[QuantParams | None]]:
        """What an integer operator reads, and on which grids; constants rounded."""
        inputs = [self.read_codes(v) for v in node.inputs]
        grids = [self.params_of(v) for v in node.inputs]
        for index, grid in op.constants.items():
            array = constant(node.inputs[index])
            assert array is not None
            inputs[index], grids[index] = torch.from_numpy(fake_quantize(array, grid)), grid
        return inputs, grids

    def apply(self, node: ir.Node, inputs: list[Tensor | None]) -> list[Tensor]:
        """Compute an operator in float, by torch where it can."""
        try:
            return torch_ops.apply(node.op_type, inputs, attributes(node))
        except torch_ops.UnknownOperatorError:
            return self.compute(node, inputs)

    def sigmoid(self, x: Tensor) -> Tensor:
        """As the runtime has it, if it is at hand: far below zero its sigmoid is off by parts of ten thousand."""
        if self.sessions is None:
            return torch.sigmoid(x)
        found: list[Tensor] = runtime_operator("Sigmoid", [x], {}, 1, constants=[], sessions=self.sessions)
        return found[0]

    def fake_quantize(self, x: Tensor, grid: QuantParams) -> Tensor:
        """See :func:`fake_quantize_tensor`."""
        return fake_quantize_tensor(x, grid)

    def written(self, node: ir.Node) -> QuantParams | None:
        """The grid of the codes that an integer operator writes, its own or that of the clamp behind it."""
        output = node.outputs[0]
        op = self.op(node)
        if op is not None and op.writes == "fused":
            return self.params_of(output.consumers()[0].outputs[0])
        return self.params_of(output) if op is not None and op.writes == "codes" else None
