"""Q-HyViT: scale, granularity and scheme of every activation together, judged where it counts.

Lee, Kwon, Park, Yu, Park, Song: Q-HyViT, arXiv 2303.12557. Every candidate is judged by the squared-gradient-weighted
error of the output of the layer that reads it; inside a bridge block, by that of the block's output, with all that
comes before in the block quantized too. Activations and weights take turns for three rounds.

Where this differs from the paper: the second derivative is taken at the float network (:mod:`converter.sensitivity.curvature`);
a per-channel grid is offered only where moving it into constants is exact, and is judged with the weights equalized.
"""

from __future__ import annotations

from collections.abc import Mapping
import os
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import torch

from converter.methods.judging.layer_readers import Reader, captured, layers_read, readers_by_owner
from converter.methods.judging.layer_search import best_weights, quantized_operand, ranked_activations, ranked_again
from converter.methods.judging.output_change import ruins_outputs
from converter.methods.judging.output_error import LayerReconstruction, reconstruction_of, weight_errors
from converter.methods.judging.tensor_error import TensorSample, grid_errors, tensor_samples_of
from converter.methods.problem import Problem
from converter.methods.protocol import Proposal
from converter.methods.q_hyvit.bridge_search import search_block
from converter.methods.q_hyvit.equalization_search import choose_equalizations, reconstructed_tensors
from converter.methods.q_hyvit.range_margin import with_margin
from converter.methods.q_hyvit.joint_learning import Settings, learn
from converter.methods.q_hyvit.refine import matrix_to_weight, reconstruct
from converter.methods.ranges import mse
from converter.plan.choice import Choice
from converter.plan.constants import codes_to_text
from converter.plan.records import Plan, approximations_of
from converter.quantization.parameters import QuantParams
from converter.sensitivity.context import AnalysisContext, ReconstructionBlock
from converter.torch_backend.network import Step
from converter.torch_backend.workers import in_order
from converter.transforms.equalization.transform import Equalizations

__all__ = ["SHARES", "choose", "equalization", "refine"]

Tensor = torch.Tensor

SHARES: Mapping[str, float] = MappingProxyType(
    {
        **{"analysis": 0.02, "equalization": 0.22, "ranges": 0.29},
        **{"search": 0.16, "sigmoids": 0.11, "placement": 0.01, "weights": 0.19},
    }
)
"""Of planning MobileViT-XXS at 256 pixels with 32 samples, to foretell the end; "analysis" and "placement" are not of the method alone."""

_ROUNDS = 3
_ROWS = 1024
_EQUALIZATION_ROWS = 512
_EQUALIZATION_SAMPLES = 8
_WITNESS_SAMPLES = 16


@dataclass
class _State:
    """Grids so far: of activations by owner, weights by layer as scales and as rounded matrices."""

    tensors: dict[str, QuantParams]
    scales: dict[str, Tensor]
    weights: dict[str, Tensor]


def equalization(problem: Problem) -> Proposal:
    """The granularity: which tensors get a scale, and a shift, per channel."""
    context = problem.context
    if context is None or not problem.sites or not problem.parts.granularity:
        return Proposal(None)
    problem.begin("equalization")
    seen, unseen = _halves(context.feed)
    samples, _ = captured(replace(context, feed=unseen), layers_read(context), rows=_EQUALIZATION_ROWS)
    tensor_samples = tensor_samples_of(context, reconstructed_tensors(problem, context), unseen)
    equalizations = choose_equalizations(
        problem, {name: reconstruction_of(sample) for name, sample in samples.items()}, seen, tensor_samples
    )
    return Proposal(Equalizations(equalizations) if equalizations else None)


def choose(problem: Problem) -> Choice:
    """Plan with grids of least weighted output error; as MSE does where nothing is multiplied."""
    problem.begin("ranges")
    start = mse.choose(problem)
    context = problem.context
    if context is None:
        return start
    layers = layers_read(context)
    reconstruction_blocks = [
        b  # one that gives no more than truth values has no output to be judged by
        for b in context.reconstruction_blocks
        if b.outputs and set(b.steps).intersection(layers) and context.unsteady.isdisjoint(_tensors(context, b))
    ]
    reconstruction_blocks = reconstruction_blocks if problem.parts.bridge else []
    samples, fisher = captured(context, layers, [o for s in reconstruction_blocks for o in s.outputs], rows=_ROWS)
    reconstructions = {name: reconstruction_of(sample) for name, sample in samples.items()}
    blind = {name for name, sample in samples.items() if sample.blind}
    readers = readers_by_owner(context, samples)
    state = _State(dict(start.tensors), {}, {n: j.right for n, j in reconstructions.items() if samples[n].weighted})
    del samples  # which take as much memory as what was made of them
    shared = _shared(context, readers)
    owners = list(dict.fromkeys(r.owner for r in context.quantized_edges.values()))
    tensor_samples = tensor_samples_of(context, owners, {name: value[:_WITNESS_SAMPLES] for name, value in context.feed.items()})
    problem.begin("search")
    ranked: dict[str, list[QuantParams]] = {}
    for number in range(_ROUNDS):
        _choose_weights(problem, context, reconstructions, state)
        best = in_order(
            partial(_ranked, problem, context, reconstructions, state, dict(ranked), tensor_samples, shared),
            readers.items(),
            context.workers,
        )
        for done, (owner, grids) in enumerate(zip(readers, best, strict=True), number * len(readers)):
            ranked[owner] = grids
            problem.progress(done, _ROUNDS * len(readers) + len(reconstruction_blocks))
        state.tensors.update({owner: grids[0] for owner, grids in ranked.items()})
    wider = [n for n in tensor_samples if n in state.tensors] if problem.parts.range_margin else []
    for owner in wider:
        state.tensors[owner] = _with_margin(problem, owner, state.tensors[owner], tensor_samples[owner])
        if owner in ranked:
            ranked[owner] = list(dict.fromkeys(_with_margin(problem, owner, grid, tensor_samples[owner]) for grid in ranked[owner]))
    for done, block in enumerate(reconstruction_blocks, _ROUNDS * len(readers)):
        problem.progress(done, _ROUNDS * len(readers) + len(reconstruction_blocks))
        state.tensors.update(search_block(context, block, fisher, ranked, state.tensors, _constants(context, state)))
    given_up = ruins_outputs(problem, state.tensors, start.tensors)
    if given_up:
        state.tensors = dict(start.tensors)
    _choose_weights(problem, context, reconstructions, state)
    found = {(name, 1): tuple(float(s) for s in scales.reshape(-1)) for name, scales in state.scales.items()}
    constants = {key: replace(grid, scale=found[key]) if key in found else grid for key, grid in start.constants.items()}
    if context.values is not None:
        return Choice(state.tensors, constants)  # errors of layers' outputs say nothing about the loss
    known = {name: reconstruction for name, reconstruction in reconstructions.items() if name not in blind}
    return Choice(
        state.tensors,
        constants,
        _errors(known, state),
        _activation_sensitivity(tensor_samples, state.tensors),
        (len(blind), len(reconstructions)),
        given_up,
    )


def _tensors(context: AnalysisContext, block: ReconstructionBlock) -> set[str]:
    """What the steps of a section read and write."""
    steps = [step for step in context.network.steps if step.name in set(block.steps)]
    return {name for step in steps for name in step.inputs + step.outputs}


def _with_margin(problem: Problem, owner: str, grid: QuantParams, tensor_sample: TensorSample) -> QuantParams:
    stats = problem.tensors[owner]
    return with_margin(grid, tensor_sample, stats.minimum, stats.maximum, asymmetric=problem.parts.scheme)


def _shared(context: AnalysisContext, readers: Mapping[str, list[Reader]]) -> frozenset[str]:
    """Tensors that enter layers and are read by something else as well, such as the stream of a residual connection."""
    layers = {r.name for some in readers.values() for r in some}
    steps = {step.name: step for step in context.network.steps}
    owners = {steps[name].inputs[index]: r.owner for (name, index), r in context.quantized_edges.items() if name in steps}
    # who only moves a tensor hands its grid on
    return frozenset(
        r.owner
        for (name, _), r in context.quantized_edges.items()
        if name in steps and name not in layers and all(owners.get(o) != r.owner for o in steps[name].outputs)
    )


def _errors(reconstructions: Mapping[str, LayerReconstruction], state: _State) -> dict[str, float]:
    """What the weights of each layer add to the loss by being rounded, as far as squared gradients tell."""
    return {
        name: float(weight_errors(reconstructions[name], reconstructions[name].left, state.weights[name]).sum()) / 2
        for name in state.scales
        if name in reconstructions
    }


def _activation_sensitivity(tensor_samples: Mapping[str, TensorSample], grids: Mapping[str, QuantParams]) -> dict[str, float]:
    """The same for the grid of each tensor that the analysis context knows."""
    return {
        name: float(grid_errors(tensor_sample, [grids[name]])[0]) / 2
        for name, tensor_sample in tensor_samples.items()
        if name in grids and not tensor_sample.blind
    }


def refine(problem: Problem, plan: Plan) -> Plan:
    """Choose the codes of weights, and biases, anew, each layer given what comes before it, as far as that is switched on."""
    context = problem.context
    assert context is not None
    grids = {name: tensor_plan.params for name, tensor_plan in plan.tensors.items() if tensor_plan.params is not None}
    # those that turned out not to be worth it run in float
    weights = {name: plan.ops[name].constants[1] for name in context.weights if 1 in plan.ops[name].constants}
    parts = problem.parts
    if context.values is not None or not (parts.weight_correction or parts.adaptive_rounding or parts.bias_correction):
        return plan
    problem.begin("weights")
    refined = reconstruct(
        context,
        grids,
        weights,
        approximations_of(plan),
        correction=parts.weight_correction,
        rounding=parts.adaptive_rounding,
        bias=parts.bias_correction,
        progress=problem.progress,
    )
    ops = dict(plan.ops)
    for name, layer in refined.items():
        codes = "" if layer.codes is None else codes_to_text(layer.codes.numpy())
        bias = () if layer.bias is None else tuple(float(b) for b in layer.bias)
        ops[name] = replace(ops[name], codes=codes, bias=bias)
    plan = plan.with_ops(plan.tensors, ops)
    if "BRIDGEQUANT_JOINT" in os.environ:  # an experiment's switch
        chosen = {key: float(value) for key, value in (one.split("=") for one in os.environ["BRIDGEQUANT_JOINT"].split(",") if "=" in one)}
        plan = learn(context, plan, replace(Settings(), **{key: int(v) if key in ("steps", "batch", "held", "every") else v for key, v in chosen.items()}))
    return plan


def _halves(feed: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Some samples, and some others if there are any."""
    few = {name: value[: 2 * _EQUALIZATION_SAMPLES] for name, value in feed.items()}
    alone = next(iter(few.values())).shape[0] < 2
    return {n: v[::2] for n, v in few.items()}, {n: v[0 if alone else 1 :: 2] for n, v in few.items()}


def _operand(
    state: _State, context: AnalysisContext, reconstructions: Mapping[str, LayerReconstruction], name: str, operand: int
) -> Tensor:
    """An operand as the layer will read it: weights, or an activation on its grid."""
    if operand == 1 and name in state.weights:
        return state.weights[name]
    quantized_edge = context.quantized_edges.get((name, operand))
    grid = None if quantized_edge is None else state.tensors[quantized_edge.owner]
    return quantized_operand(reconstructions[name], operand, grid, 1.0 if quantized_edge is None else quantized_edge.factor)


def _choose_weights(problem: Problem, context: AnalysisContext, reconstructions: Mapping[str, LayerReconstruction], state: _State) -> None:
    def best(name: str) -> tuple[Tensor, Tensor]:
        return best_weights(reconstructions[name], _operand(state, context, reconstructions, name, 0), problem.constants[name, 1].bits)

    names = [n for n in context.weights if n in reconstructions]
    for name, (scales, rounded) in zip(names, in_order(best, names, context.workers), strict=True):
        state.scales[name], state.weights[name] = scales, rounded


def _ranked(
    problem: Problem,
    context: AnalysisContext,
    reconstructions: Mapping[str, LayerReconstruction],
    state: _State,
    before: Mapping[str, list[QuantParams]],
    tensor_samples: Mapping[str, TensorSample],
    shared: frozenset[str],
    item: tuple[str, list[Reader]],
) -> list[QuantParams]:
    """The best grids of all, or of those that were best in the round before."""
    owner, users = item
    others = {(u.name, 1 - u.operand): _operand(state, context, reconstructions, u.name, 1 - u.operand) for u in users}
    if owner in before:
        return ranked_again(users, reconstructions, others, before[owner], tensor_samples.get(owner) if owner in shared else None)
    stats, start = problem.tensors[owner], state.tensors[owner]
    return ranked_activations(
        users,
        reconstructions,
        others,
        start,
        stats.minimum,
        stats.maximum,
        asymmetric=problem.parts.scheme,
        tensor_sample=tensor_samples.get(owner) if owner in shared else None,
        guard=tensor_samples.get(owner),
    )


def _constants(context: AnalysisContext, state: _State) -> dict[str, Tensor]:
    """Weights on their grids, in the shapes of the network's constants, by name."""
    steps: dict[str, Step] = {s.name: s for s in context.network.steps}
    result = {}
    for name in state.scales:
        step = steps[name]
        result[step.inputs[1]] = matrix_to_weight(step, state.weights[name], context.network.constants[step.inputs[1]].shape)
    return result
