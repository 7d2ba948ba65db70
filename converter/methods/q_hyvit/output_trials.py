"""Search the grids of tensors that no layer reads: terms of sums, what norms, activations and poolings read.

No layer judges them. Squared gradients tell which numbers matter, but count errors as if they were independent, and those
of numbers that are cut off are not: they have one sign, and add up. So what the gradients propose is put to the test,
where they promise most: the whole network runs with that grid alone, and the outputs decide.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from converter.methods.judging.output_change import affordable_samples
from converter.methods.judging.output_error import on_grids
from converter.methods.judging.range_candidates import covering, scale_candidates, shortlist, with_moved_ends
from converter.methods.judging.tensor_error import TensorSample, grid_errors, thinned_sample
from converter.methods.problem import Problem
from converter.quantization.parameters import QuantParams
from converter.sensitivity.context import AnalysisContext
from converter.torch_backend.network import Network, run_samples, subnetwork
from converter.torch_backend.workers import in_order

__all__ = ["unread_params"]

Tensor = torch.Tensor

_TRIAL_SAMPLES = 8
"""Or more, in a small network; twice as many confirm."""

_TRIALS = 8
"""Tensors whose proposals are put to the test."""

_PARTS = (0.33, 0.67)
"""Of the way to a proposal: gradients at the float network see too little harm in cutting off."""


_AROUND = (0.8, 1.25)
"""Times the best range on that way: the outputs may want one that neither end of the way has."""


_DOUBT = 0.9
"""Times the error of the best on that way: so little has to be left for another grid to be taken, as there are few samples."""


@dataclass(frozen=True)
class _Proposal:
    """A grid for a tensor, and by how much squared gradients think that it lessens the loss."""

    owner: str
    params: QuantParams
    gain: float


def unread_params(
    problem: Problem, context: AnalysisContext, start: Mapping[str, QuantParams], tensor_samples: Mapping[str, TensorSample]
) -> dict[str, QuantParams]:
    """What the outputs decide for the tensors where they were asked, the grid given if that is best.

    Args:
        problem: for what was observed.
        context: of the network.
        start: grids by tensor.
        tensor_samples: of the tensors that no layer reads.
    """

    def propose(item: tuple[str, TensorSample]) -> _Proposal:
        owner, tensor_sample = item
        return _proposal(owner, tensor_sample, start[owner], problem.tensors[owner].minimum, problem.tensors[owner].maximum)

    proposals = sorted(in_order(propose, tensor_samples.items(), context.workers), key=lambda p: -p.gain)[:_TRIALS]
    proposals = [p for p in proposals if p.gain > 0.0]
    if not proposals:
        return {}
    count = affordable_samples(problem, _TRIAL_SAMPLES)

    def tested(proposal: _Proposal) -> QuantParams:
        best = _best(context, count, proposal.owner, _between(start[proposal.owner], proposal.params), 1.0)
        around = [covering(best.lowest * f, best.highest * f, best.bits, best.signed) for f in _AROUND]
        # on more samples: on the few the best looks better than it is
        return _best(context, 2 * count, proposal.owner, [best, *around], _DOUBT)

    decided = {}
    for proposal, params in zip(proposals, in_order(tested, proposals, context.workers), strict=True):
        decided[proposal.owner] = params
        problem.progress(len(decided), len(proposals))
    return decided


def _between(start: QuantParams, proposal: QuantParams) -> list[QuantParams]:
    """From one grid to the other, by their ranges."""
    steps = []
    for part in _PARTS:
        low = (1.0 - part) * start.lowest + part * proposal.lowest
        high = (1.0 - part) * start.highest + part * proposal.highest
        steps.append(covering(low, high, start.bits, start.signed))
    return [start, *steps, proposal]


def _proposal(owner: str, tensor_sample: TensorSample, start: QuantParams, low: float, high: float) -> _Proposal:
    candidates = [start, *scale_candidates(low, high, start.bits, start.signed)]
    kept = shortlist(candidates, grid_errors(thinned_sample(tensor_sample), candidates))
    finalists = list(dict.fromkeys([start, *kept, *with_moved_ends(kept[0])]))
    errors = grid_errors(tensor_sample, finalists)
    best = int(errors.argmin())
    return _Proposal(owner, finalists[best], float(errors[0] - errors[best]))


def _best(context: AnalysisContext, samples: int, owner: str, grids: Sequence[QuantParams], doubt: float) -> QuantParams:
    """The first of some grids, or another that leaves so much less, as a factor, of the first one's error, and least of all."""
    errors = _output_errors(context, samples, owner, grids)
    best = min(range(len(grids)), key=errors.__getitem__)
    return grids[best if errors[best] < doubt * errors[0] else 0]


def _output_errors(context: AnalysisContext, samples: int, owner: str, grids: Sequence[QuantParams]) -> list[float]:
    """Squared error of the outputs over their squares, with one tensor on each of some grids and all else float."""
    at_once = 1 if context.network.one_by_one else context.network.most_at_once
    powers: dict[str, float] = defaultdict(float)
    noises: list[dict[str, float]] = [defaultdict(float) for _ in grids]
    for start in range(0, min(samples, next(iter(context.feed.values())).shape[0]), at_once):
        feed = {name: value[start : min(samples, start + at_once)] for name, value in context.feed.items()}
        behind, known = _behind(context, owner, feed)
        wanted = {name: value for name, value in run_samples(behind, known).items() if value.is_floating_point()}
        answers = [run_samples(behind, known, hook=on_grids(context.quantized_edges, {owner: grid})) for grid in grids]
        for name, value in wanted.items():
            powers[name] += _square(value, value)
            for noise, got in zip(noises, answers, strict=True):
                noise[name] += _noise(got.get(name), value)
    return [sum(noise[name] / max(power, 1e-30) for name, power in powers.items()) for noise in noises]


def _behind(context: AnalysisContext, owner: str, feed: Mapping[str, Tensor]) -> tuple[Network, Mapping[str, Tensor]]:
    """What runs from the first reader of a tensor on, which alone depends on its grid, and what it is given on some samples."""
    network = context.network
    readers = {name for (name, _), edge in context.quantized_edges.items() if edge.owner == owner}
    first = next((place for place, step in enumerate(network.steps) if step.name in readers), 0)
    made = {name for step in network.steps[:first] for name in step.outputs if name}
    behind = subnetwork(network, network.outputs, made | set(network.inputs))
    known = run_samples(network, feed, wanted=behind.inputs)
    # sequences are not handed over
    return (behind, known) if known.keys() >= set(behind.inputs) else (network, feed)


def _noise(got: Tensor | None, wanted: Tensor) -> float:
    """Squared error; infinite if the grid has changed the shape, or where numbers are finite."""
    if got is None or got.shape != wanted.shape or not torch.equal(torch.isfinite(got), torch.isfinite(wanted)):
        return math.inf
    return _square(got - wanted, wanted)


def _square(values: Tensor, wanted: Tensor) -> float:
    """Sum of squares where some numbers are finite."""
    return float(torch.where(torch.isfinite(wanted), values, 0.0).double().square().sum())
