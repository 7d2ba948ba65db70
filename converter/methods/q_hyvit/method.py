"""Q-HyViT: scale, granularity and scheme of every activation together, judged where it counts.

Lee, Kwon, Park, Yu, Park, Song: Q-HyViT, arXiv 2303.12557. Every candidate is judged by the squared-gradient-weighted
error of the output of the layer that reads it; inside a bridge block, by that of the block's output, with all that
comes before in the block quantized too. Activations and weights take turns for three rounds.

Where this differs from the paper: the second derivative is taken at the float network (:mod:`converter.sensitivity.curvature`);
a per-channel grid is offered only where folding it into constants is exact, and is judged with the weights folded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from converter.methods.judging.layer_readers import Reader, captured, layers_read, readers_by_root
from converter.methods.judging.layer_search import best_weights, quantized_operand, ranked_activations, ranked_again
from converter.methods.judging.output_change import ruins_outputs
from converter.methods.judging.output_error import Judge, judge_of, weight_errors
from converter.methods.judging.tensor_error import TensorSample, grid_errors, tensor_samples_of
from converter.methods.problem import Problem
from converter.methods.protocol import Proposal
from converter.methods.q_hyvit.activation_search import activation_grids
from converter.methods.q_hyvit.bridge_search import search_section
from converter.methods.q_hyvit.equalization_search import choose_folds, judged_tensors
from converter.methods.q_hyvit.output_trials import loose_grids
from converter.methods.q_hyvit.range_margin import with_room
from converter.methods.q_hyvit.refine import matrix_to_weight, reconstruct
from converter.methods.ranges import mse
from converter.plan.choice import Choice
from converter.plan.constants import codes_to_text
from converter.plan.records import Plan, ramps_of
from converter.quantization.parameters import QuantParams
from converter.sensitivity.context import Section, Study
from converter.torch_backend.network import Step
from converter.torch_backend.workers import in_order
from converter.transforms.equalization.transform import Equalization

__all__ = ["choose", "fold", "refine"]

Tensor = torch.Tensor

_ROUNDS = 3
_ROWS = 1024
_FOLD_ROWS = 512
_FOLD_SAMPLES = 8
_WITNESS_SAMPLES = 16

_EASY_BITS = 8
"""Weights of so many bits stay as they are, rounded to the nearest: for other ones no gain was measured."""


@dataclass
class _State:
    """Grids so far: of activations by root tensor, weights by layer as scales and as rounded matrices."""

    tensors: dict[str, QuantParams]
    scales: dict[str, Tensor]
    weights: dict[str, Tensor]


def fold(problem: Problem) -> Proposal:
    """The granularity: which tensors get a scale, and a shift, per channel."""
    study = problem.study
    if study is None or not problem.sites or not problem.parts.granularity:
        return Proposal(None)
    seen, unseen = _halves(study.feed)
    samples, _ = captured(replace(study, feed=unseen), layers_read(study), rows=_FOLD_ROWS)
    tensor_samples = tensor_samples_of(study, judged_tensors(problem, study), unseen)
    folds = choose_folds(problem, {name: judge_of(sample) for name, sample in samples.items()}, seen, tensor_samples)
    return Proposal(Equalization(folds) if folds else None)


def choose(problem: Problem) -> Choice:
    """Plan with grids of least weighted output error; as MSE does where nothing is multiplied."""
    start = mse.choose(problem)
    study = problem.study
    if study is None:
        return start
    layers = layers_read(study)
    sections = [s for s in study.sections if set(s.steps).intersection(layers) and study.unsteady.isdisjoint(_tensors(study, s))]
    sections = sections if problem.parts.bridge else []
    samples, importance = captured(study, layers, [o for s in sections for o in s.outputs], rows=_ROWS)
    judges = {name: judge_of(sample) for name, sample in samples.items()}
    readers = readers_by_root(study, samples)
    state = _State(dict(start.tensors), {}, {n: j.right for n, j in judges.items() if samples[n].weighted})
    shared = _shared(study, readers)
    roots = list(dict.fromkeys(r.root for r in study.readings.values()))
    tensor_samples = tensor_samples_of(study, roots, {name: value[:_WITNESS_SAMPLES] for name, value in study.feed.items()})
    loose = [n for n in tensor_samples if n not in readers]
    settled = activation_grids(problem, study, start.tensors, loose) if problem.parts.activations else {}
    left = {n: tensor_samples[n] for n in loose if n not in settled} if problem.parts.trials else {}
    settled |= loose_grids(problem, study, start.tensors, left)
    state.tensors.update(settled)
    ranked: dict[str, list[QuantParams]] = {}
    for number in range(_ROUNDS):
        _choose_weights(problem, study, judges, state)
        best = in_order(
            partial(_ranked, problem, study, judges, state, dict(ranked), tensor_samples, shared), readers.items(), study.workers
        )
        for done, (root, grids) in enumerate(zip(readers, best, strict=True), number * len(readers)):
            ranked[root] = grids
            problem.progress(done, _ROUNDS * len(readers) + len(sections))
        state.tensors.update({root: grids[0] for root, grids in ranked.items()})
    roomy = [n for n in tensor_samples if n in state.tensors and n not in settled] if problem.parts.room else []
    for root in roomy:
        state.tensors[root] = _with_room(problem, root, state.tensors[root], tensor_samples[root])
        if root in ranked:
            ranked[root] = list(dict.fromkeys(_with_room(problem, root, grid, tensor_samples[root]) for grid in ranked[root]))
    for done, section in enumerate(sections, _ROUNDS * len(readers)):
        problem.progress(done, _ROUNDS * len(readers) + len(sections))
        state.tensors.update(search_section(study, section, importance, ranked, state.tensors, _constants(study, state)))
    given_up = ruins_outputs(problem, state.tensors, start.tensors)
    if given_up:
        state.tensors = dict(start.tensors)
    _choose_weights(problem, study, judges, state)
    found = {(name, 1): tuple(float(s) for s in scales.reshape(-1)) for name, scales in state.scales.items()}
    constants = {key: replace(grid, scale=found[key]) if key in found else grid for key, grid in start.constants.items()}
    if study.values is not None:
        return Choice(state.tensors, constants)  # errors of layers' outputs say nothing about the loss
    known = {name: judge for name, judge in judges.items() if not samples[name].blind}
    blind = (len(judges) - len(known), len(judges))
    return Choice(state.tensors, constants, _errors(known, state), _noises(tensor_samples, state.tensors), blind, given_up)


def _tensors(study: Study, section: Section) -> set[str]:
    """What the steps of a section read and write."""
    steps = [step for step in study.network.steps if step.name in set(section.steps)]
    return {name for step in steps for name in step.inputs + step.outputs}


def _with_room(problem: Problem, root: str, grid: QuantParams, tensor_sample: TensorSample) -> QuantParams:
    stats = problem.tensors[root]
    return with_room(grid, tensor_sample, stats.minimum, stats.maximum, asymmetric=problem.parts.scheme)


def _shared(study: Study, readers: Mapping[str, list[Reader]]) -> frozenset[str]:
    """Tensors that enter layers and are read by something else as well, such as the stream of a residual connection."""
    layers = {r.name for some in readers.values() for r in some}
    steps = {step.name: step for step in study.network.steps}
    roots = {steps[name].inputs[index]: r.root for (name, index), r in study.readings.items() if name in steps}
    # who only moves a tensor hands its grid on
    return frozenset(
        r.root
        for (name, _), r in study.readings.items()
        if name in steps and name not in layers and all(roots.get(o) != r.root for o in steps[name].outputs)
    )


def _errors(judges: Mapping[str, Judge], state: _State) -> dict[str, float]:
    """What the weights of each layer add to the loss by being rounded, as far as squared gradients tell."""
    return {
        name: float(weight_errors(judges[name], judges[name].left, state.weights[name]).sum()) / 2
        for name in state.scales
        if name in judges
    }


def _noises(tensor_samples: Mapping[str, TensorSample], grids: Mapping[str, QuantParams]) -> dict[str, float]:
    """The same for the grid of each tensor that the study knows."""
    return {
        name: float(grid_errors(tensor_sample, [grids[name]])[0]) / 2
        for name, tensor_sample in tensor_samples.items()
        if name in grids and not tensor_sample.blind
    }


def refine(problem: Problem, plan: Plan) -> Plan:
    """Choose the codes of weights, and biases, anew, each layer given what comes before it, as far as that is switched on."""
    study = problem.study
    assert study is not None
    grids = {name: tensor_plan.params for name, tensor_plan in plan.tensors.items() if tensor_plan.params is not None}
    # those that turned out not to be worth it run in float
    weights = {name: plan.ops[name].constants[1] for name in study.weights if 1 in plan.ops[name].constants}
    coarse, parts = any(grid.bits < _EASY_BITS for grid in weights.values()), problem.parts
    correction, rounding = coarse and parts.weight_correction, coarse and parts.adaptive_rounding
    if study.values is not None or not (correction or rounding or parts.bias_correction):
        return plan
    refined = reconstruct(study, grids, weights, ramps_of(plan), correction=correction, rounding=rounding, bias=parts.bias_correction)
    ops = dict(plan.ops)
    for name, layer in refined.items():
        codes = "" if layer.codes is None else codes_to_text(layer.codes.numpy())
        bias = () if layer.bias is None else tuple(float(b) for b in layer.bias)
        ops[name] = replace(ops[name], codes=codes, bias=bias)
    return plan.with_ops(plan.tensors, ops)


def _halves(feed: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Some samples, and some others if there are any."""
    few = {name: value[: 2 * _FOLD_SAMPLES] for name, value in feed.items()}
    alone = next(iter(few.values())).shape[0] < 2
    return {n: v[::2] for n, v in few.items()}, {n: v[0 if alone else 1 :: 2] for n, v in few.items()}


def _operand(state: _State, study: Study, judges: Mapping[str, Judge], name: str, operand: int) -> Tensor:
    """An operand as the layer will read it: weights, or an activation on its grid."""
    if operand == 1 and name in state.weights:
        return state.weights[name]
    reading = study.readings.get((name, operand))
    grid = None if reading is None else state.tensors[reading.root]
    return quantized_operand(judges[name], operand, grid, 1.0 if reading is None else reading.factor)


def _choose_weights(problem: Problem, study: Study, judges: Mapping[str, Judge], state: _State) -> None:
    def best(name: str) -> tuple[Tensor, Tensor]:
        return best_weights(judges[name], _operand(state, study, judges, name, 0), problem.constants[name, 1].bits)

    names = [n for n in study.weights if n in judges]
    for name, (scales, rounded) in zip(names, in_order(best, names, study.workers), strict=True):
        state.scales[name], state.weights[name] = scales, rounded


def _ranked(
    problem: Problem,
    study: Study,
    judges: Mapping[str, Judge],
    state: _State,
    before: Mapping[str, list[QuantParams]],
    tensor_samples: Mapping[str, TensorSample],
    shared: frozenset[str],
    item: tuple[str, list[Reader]],
) -> list[QuantParams]:
    """The best grids of all, or of those that were best in the round before."""
    root, users = item
    others = {(u.name, 1 - u.operand): _operand(state, study, judges, u.name, 1 - u.operand) for u in users}
    if root in before:
        return ranked_again(users, judges, others, before[root], tensor_samples.get(root) if root in shared else None)
    stats, start = problem.tensors[root], state.tensors[root]
    return ranked_activations(
        users,
        judges,
        others,
        start,
        stats.minimum,
        stats.maximum,
        asymmetric=problem.parts.scheme,
        tensor_sample=tensor_samples.get(root) if root in shared else None,
        guard=tensor_samples.get(root),
    )


def _constants(study: Study, state: _State) -> dict[str, Tensor]:
    """Weights on their grids, in the shapes of the network's constants, by name."""
    steps: dict[str, Step] = {s.name: s for s in study.network.steps}
    result = {}
    for name in state.scales:
        step = steps[name]
        result[step.inputs[1]] = matrix_to_weight(step, state.weights[name], study.network.constants[step.inputs[1]].shape)
    return result
