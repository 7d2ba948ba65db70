"""Analysis context: what a method gets that looks at layers and blocks and not only at tensors. Plain data and numbers.

Quantized edges say where a running integer model has a grid in the way: an integer operator reads codes, and whoever reads
what an integer operator wrote reads numbers that lie on a grid already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir
import torch

from converter.calibration.observer import values_of
from converter.forms.registry import WITH_WEIGHTS
from converter.graph.operator_sets import CLAMPS, LAYERS
from converter.graph.queries import constant, is_float, relabel_factor, relabel_offset
from converter.plan.records import Plan
from converter.runtime.session import Feed
from converter.sensitivity.output_loss import OutputLoss
from converter.torch_backend.network import Network, network_of

__all__ = ["AnalysisContext", "QuantizedEdge", "ReconstructionBlock", "context_of", "context_of_layers", "quantized_edges_of", "stack"]

Tensor = torch.Tensor

_FEW = 8
"""Samples whose whole tensors are kept."""


@dataclass(frozen=True)
class QuantizedEdge:
    """A tensor that is read on a grid.

    Attributes:
        owner: the tensor whose grid it is.
        factor: what the numbers of that grid are multiplied by here.
    """

    owner: str
    factor: float


@dataclass(frozen=True)
class ReconstructionBlock:
    """A bridge block, or another part that is judged as a whole, by names.

    Attributes:
        steps: operators, in order.
        outputs: tensors at which its effect is judged.
    """

    steps: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class AnalysisContext:
    """The network and how it will run.

    Attributes:
        network: the canonical float model as torch functions; only its layers if ``values`` are given.
        feed: calibration samples by input name, the sample axis in front.
        quantized_edges: where a grid is in the way, by (operator, input index).
        weights: operators whose constant operand 1 is stored as integers.
        reconstruction_blocks: bridge blocks.
        seed: of random choices.
        values: what the layers read, the sample axis in front, where the network as a whole has no torch functions.
        workers: how many things may be computed at once.
        loss: in words, for the report.
        losses: of the network's float outputs, by name.
        unsteady: names of tensors that have not the same shape for all samples, or no elements.
    """

    network: Network
    feed: Mapping[str, Tensor]
    quantized_edges: Mapping[tuple[str, int], QuantizedEdge]
    weights: tuple[str, ...]
    reconstruction_blocks: tuple[ReconstructionBlock, ...]
    seed: int
    values: Mapping[str, Tensor] | None = None
    workers: int = 1
    loss: str = ""
    losses: Mapping[str, OutputLoss] = field(default_factory=dict)
    unsteady: frozenset[str] = frozenset()


def stack(feeds: Sequence[Feed]) -> dict[str, Tensor]:
    """Samples of equal shapes as one tensor per input, the sample axis in front."""
    return {name: torch.from_numpy(np.stack([np.asarray(feed[name]) for feed in feeds])) for name in feeds[0]}


def quantized_edges_of(model: ir.Model, plan: Plan) -> dict[tuple[str, int], QuantizedEdge]:
    """Where an assigned plan puts a grid between a tensor and its reader."""
    made: dict[str, ir.Node] = {str(o.name): node for node in model.graph for o in node.outputs}
    result: dict[tuple[str, int], QuantizedEdge] = {}
    for node in model.graph:
        op = plan.ops.get(str(node.name))
        for index, value in enumerate(node.inputs):
            if value is None or not is_float(value) or constant(value) is not None:
                continue
            tensor_plan = plan.tensors.get(str(value.name))
            if tensor_plan is None or tensor_plan.params is None:
                continue
            maker = plan.ops.get(str(made[str(value.name)].name)) if str(value.name) in made else None
            if maker is not None and maker.form == "difference":  # of numbers on a grid, on which it lies, too
                continue
            coded = maker is not None and maker.writes == "codes"
            absorbed = op is not None and op.runs == "integer" and op.op_type in CLAMPS
            if coded or (op is not None and op.reads_codes and not absorbed):
                result[str(node.name), index] = _owner(str(value.name), plan, made)
    return result


def _owner(name: str, plan: Plan, made: Mapping[str, ir.Node]) -> QuantizedEdge:
    """Whose parameters a tensor has; pixels from which a mean was subtracted count by themselves, as their zero lies elsewhere."""
    factor = 1.0
    while plan.tensors[name].kind in ("shared", "derived") and relabel_offset(made[name]) is None:
        if plan.tensors[name].kind == "derived":
            factor *= relabel_factor(made[name]) or 1.0
        name = plan.tensors[name].source
    return QuantizedEdge(name, factor)


def context_of(
    model: ir.Model, plan: Plan, feeds: Sequence[Feed], reconstruction_blocks: Sequence[ReconstructionBlock], seed: int
) -> AnalysisContext:
    """Put an analysis context together for an assigned plan, whose grids do not matter."""
    return AnalysisContext(
        network_of(model), stack(feeds), quantized_edges_of(model, plan), _weighted(plan), tuple(reconstruction_blocks), seed
    )


def context_of_layers(model: ir.Model, plan: Plan, feeds: Sequence[Feed], seed: int, unsteady: frozenset[str]) -> AnalysisContext:
    """The same for a network that cannot be run in torch as a whole: layers by themselves, and what they read.

    Args:
        model: canonical float model.
        plan: assigned.
        feeds: samples.
        seed: of random choices.
        unsteady: names of tensors that have not the same shape for all samples.
    """
    network = replace(network_of(model, LAYERS), one_by_one=True)
    names = dict.fromkeys(n for s in network.steps for n in s.inputs[:2] if n not in network.constants)
    few = feeds[:_FEW]
    values = {n: torch.from_numpy(v) for n, v in values_of(model, few, [n for n in names if n not in unsteady]).items()}
    return AnalysisContext(network, stack(few), quantized_edges_of(model, plan), _weighted(plan), (), seed, values, unsteady=unsteady)


def _weighted(plan: Plan) -> tuple[str, ...]:
    return tuple(n for n, op in plan.ops.items() if op.runs == "integer" and op.form in WITH_WEIGHTS)
