"""Search the grids of tensors that only activation functions read, by what comes out of those.

SiLU and GELU hold nearly still far below zero, so that much of what they read can be cut off for finer steps. How much,
squared gradients do not tell: they take the function for a straight line, and count errors as independent, while those of
numbers that are cut off have one sign and add up. Here the two kinds of error are told apart. What is cut off changes the
function's result by a known amount at every number, and these amounts are added up with their signs, each times the
gradient there: an error e changes the loss by the mean of (v . e)^2 / 2 over the probes v (:mod:`converter.sensitivity.curvature`). What is
rounded is off by a twelfth of a squared step on average, independently, times the function's slope.

Numbers are told apart by their bin in a histogram of the tensor's range, so that a candidate costs a sum over the bins.

Gradients speak for small changes. Where a softmax behind is saturated they vanish, and much could be cut off that does matter. So the
network is run with what was found, and grids with which it gives worse answers are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from converter.methods.judging.output_change import affordable_samples, output_change
from converter.methods.judging.output_error import on_grids
from converter.methods.judging.range_candidates import covering
from converter.methods.problem import Problem
from converter.quantization.parameters import QuantParams
from converter.sensitivity.context import AnalysisContext
from converter.sensitivity.curvature import pulled_back
from converter.torch_backend.network import Network, Step, run, run_samples, subnetwork
from converter.torch_backend.ops import ACTIVATION
from converter.torch_backend.workers import in_order, over_samples

__all__ = ["Activation", "activation_grids", "activations_of"]

Tensor = torch.Tensor

_SAMPLES = 32
_PROBES = 4
"""Of each sample. A sample is run by itself: gradients of whole networks take memory."""

_BINS = 1024
_PARTS = tuple(float(p) for p in np.linspace(0.1, 1.1, 41))
"""Of the observed range, for either end."""

_MORE = 1.1
"""Times the least error that any grid leaves. The widest with no more than that has room for what the samples do not show."""


_TRIED = 8
"""Samples, or more, on which grids are put to the test."""

_WORSE = 1.25
"""Times the loss with the grids given: what makes room for other samples costs a little."""


@dataclass(frozen=True)
class Activation:
    """A function of one tensor, element by element.

    Attributes:
        source: the tensor, which nothing else reads.
        steps: that compute it, in order.
        output: its result, the only one that others read.
    """

    source: str
    steps: tuple[Step, ...]
    output: str


@dataclass(frozen=True)
class _Histogram:
    """What errors of an activation's result do to the loss, by the bin in which its input lies.

    Attributes:
        signed: sums of the gradient, float64 [samples * probes, bins].
        squared: sums of its square, mean over samples and probes, float64 [bins].
    """

    signed: Tensor
    squared: Tensor


def activations_of(network: Network, names: Collection[str]) -> list[Activation]:
    """The activation functions that read some tensors, and all that reads these."""
    readers: dict[str, list[Step]] = {}
    for step in network.steps:
        for name in step.inputs:
            readers.setdefault(name, []).append(step)
    found = (_activation(network, readers, name) for name in names)
    return [activation for activation in found if activation is not None]


def _activation(network: Network, readers: Mapping[str, Sequence[Step]], source: str) -> Activation | None:
    """Grow the function step by step; its end is the first place at which a single tensor leads on."""
    made, steps = {source}, list[Step]()
    for step in network.steps:
        if not _pointwise(step, network, made):
            continue
        made.update(step.outputs)
        steps.append(step)
        inside = {s.name for s in steps}
        ends = [n for n in made if n in network.outputs or any(r.name not in inside for r in readers.get(n, ()))]
        if len(ends) == 1 and ends != [source]:
            return Activation(source, tuple(steps), ends[0])
    return None


def _pointwise(step: Step, network: Network, made: Collection[str]) -> bool:
    constants = [network.constants[n] for n in step.inputs if n in network.constants]
    computed = [n for n in step.inputs if n and n not in network.constants]
    return step.op_type in ACTIVATION and bool(computed) and all(n in made for n in computed) and all(c.numel() == 1 for c in constants)


def activation_grids(
    problem: Problem, context: AnalysisContext, start: Mapping[str, QuantParams], names: Collection[str]
) -> dict[str, QuantParams]:
    """Grids of least estimated change of the loss, for those of the tensors that only activation functions read.

    Args:
        problem: for what was observed.
        context: of a network that can be differentiated; for another there are none.
        start: grids by tensor, for their width and container.
        names: of the tensors.
    """
    found = activations_of(context.network, names) if context.values is None else []
    found = [a for a in found if problem.tensors[a.source].maximum > problem.tensors[a.source].minimum]
    found = [a for a in found if context.unsteady.isdisjoint([a.source, a.output])]
    ranges = {a.source: (problem.tensors[a.source].minimum, problem.tensors[a.source].maximum) for a in found}
    histograms = _histograms(context, found, ranges)

    def best(activation: Activation) -> QuantParams:
        name = activation.source
        return _best(context.network, activation, histograms[name], *ranges[name], start[name])

    # where no gradient came, nothing can be told
    found = [a for a in found if a.source in histograms and bool((histograms[a.source].squared > 0.0).any())]
    return _confirmed(
        problem, context, start, {a.source: grid for a, grid in zip(found, in_order(best, found, context.workers), strict=True)}
    )


@torch.no_grad()
def _confirmed(
    problem: Problem, context: AnalysisContext, start: Mapping[str, QuantParams], grids: Mapping[str, QuantParams]
) -> dict[str, QuantParams]:
    """Those of some grids with which the network's answers are about as good as with the ones given; found by halves."""
    count = affordable_samples(problem, _TRIED)
    few = {name: value[:count] for name, value in context.feed.items()}
    wanted = run_samples(context.network, few, workers=context.workers) if grids else {}

    def change(chosen: Mapping[str, QuantParams]) -> float:
        got = run_samples(context.network, few, hook=on_grids(context.quantized_edges, chosen), workers=context.workers)
        return output_change(wanted, got, context.losses)

    def kept(names: Sequence[str]) -> list[str]:
        if not names or change({n: grids[n] for n in names}) <= _WORSE * change({n: start[n] for n in names}):
            return list(names)
        half = len(names) // 2
        return [] if half == 0 else kept(names[:half]) + kept(names[half:])

    return {name: grids[name] for name in kept(list(grids))}


def _histograms(context: AnalysisContext, found: Sequence[Activation], ranges: Mapping[str, tuple[float, float]]) -> dict[str, _Histogram]:
    feed = {name: value[:_SAMPLES] for name, value in context.feed.items()}
    sources, outputs = [a.source for a in found], [a.output for a in found]

    total = next(iter(feed.values())).shape[0]
    # zero where no gradient comes: nothing depends on it
    sums = {a.output: torch.zeros(2, total * _PROBES, _BINS, dtype=torch.float64) for a in found}

    def run_sample(place: int) -> int:
        sample = {name: value[place : place + 1] for name, value in feed.items()}
        generator = torch.Generator().manual_seed(context.seed + place)
        row = place * _PROBES

        def add(output: str, gradient: Tensor) -> None:
            weights = gradient.flatten().double()
            sums[output][0, row].scatter_add_(0, bins[output].long(), weights)
            sums[output][1, row].scatter_add_(0, bins[output].long(), weights.square_())

        values, pulled = pulled_back(context.network, sample, context.losses, sources, outputs, _PROBES, generator, add)
        bins = {a.output: _bins(values[a.source].detach(), *ranges[a.source]) for a in found}
        for _ in pulled:
            row += 1
        return row - place * _PROBES

    pulls = sum(over_samples(run_sample, total, 1, context.workers)) if found else 0
    return {a.source: _Histogram(sums[a.output][0], sums[a.output][1].mean(0)) for a in found} if pulls else {}


def _bins(values: Tensor, low: float, high: float) -> Tensor:
    """In which bin of a range each number lies; int16, flat."""
    return ((values - low) * (_BINS / (high - low))).long().clamp_(0, _BINS - 1).flatten().short()


def _best(network: Network, activation: Activation, histogram: _Histogram, low: float, high: float, start: QuantParams) -> QuantParams:
    lows = _PARTS if low < 0.0 else (1.0,)
    highs = _PARTS if high > 0.0 else (1.0,)
    grids = list(dict.fromkeys([start, *(covering(low * a, high * b, start.bits, start.signed) for a in lows for b in highs)]))
    errors = _errors(_function(network, activation), histogram, low, high, grids)
    fine = [grid for grid, error in zip(grids, errors.tolist(), strict=True) if error <= _MORE * float(errors.min())]
    # gradients that are no numbers tell nothing
    return max(fine or [start], key=lambda grid: grid.highest - grid.lowest)


def _function(network: Network, activation: Activation) -> Callable[[Tensor], Tensor]:
    part = subnetwork(network, [activation.output], [activation.source])
    # constants may have more axes than the numbers
    return lambda values: run(part, {activation.source: values.float()})[activation.output].double().reshape(values.shape)


def _errors(function: Callable[[Tensor], Tensor], histogram: _Histogram, low: float, high: float, grids: Sequence[QuantParams]) -> Tensor:
    """Twice what each grid is expected to change the loss by, on average over the samples; float64 [grids]."""
    width = (high - low) / _BINS
    edges = low + width * torch.arange(_BINS + 1, dtype=torch.float64)
    middles = 0.5 * (edges[1:] + edges[:-1])
    slopes = function(edges).diff() / width
    lowest, highest = (torch.tensor([[getattr(g, end)] for g in grids], dtype=torch.float64) for end in ("lowest", "highest"))
    steps = torch.tensor([g.scale[0] for g in grids], dtype=torch.float64)
    off = function(torch.clamp(middles, lowest, highest)) - function(middles)
    inside = ((middles >= lowest) & (middles <= highest)).double()
    rounded = inside @ (histogram.squared * slopes.square())
    return (off @ histogram.signed.T).square().mean(1) + steps.square() / 12.0 * rounded
