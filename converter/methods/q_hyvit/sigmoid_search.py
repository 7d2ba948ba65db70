"""Which sigmoids become piecewise-linear: those that save most for what they change, as many as leave the network's answer as it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch

from converter.methods.judging.output_change import divergence, error_share
from converter.methods.judging.output_error import on_grids
from converter.methods.problem import Problem
from converter.plan.choice import Choice
from converter.quantization.parameters import FloatArray
from converter.sensitivity.context import AnalysisContext
from converter.sensitivity.output_loss import OutputLoss
from converter.sensitivity.pull_back import Takers, Wish, finite, gathered
from converter.torch_backend.network import Hook, Network, Step, run_samples
from converter.torch_backend.workers import in_order
from converter.transforms.sigmoids.piecewise_linear import (
    PiecewiseLinear,
    PricedApproximation,
    SigmoidSite,
    approximation_params,
    fit_constant_gate,
    fit_piecewise_linear,
    gating_error,
)

__all__ = ["approximation_hook", "changes_wish", "choose_approximations", "fitted_lines", "loss_changes"]

Tensor = torch.Tensor

_MOST_DIVERGENCE = 0.0008
"""Nats per position by which piecewise-linear sigmoids may change class scores, all together."""

_MOST_ERROR = 0.005
"""Share of its power by which they may change any output. Scores that are all alike hardly diverge, whatever happens to them."""

_MOST_NOISE = 1.0
"""Times what the grids of tensors change already, by which they may change an output that is no class scores: there every error counts."""

_MOST_CONSTANT_ERROR = 0.002
"""Of what a constant gates, as a share of its power. With more, a few of them use up what the answer may change."""

_SAMPLES = 16
_FEW = 4
"""Samples after which it is looked whether a change is too much already."""

_PROBES = 4
_SMALLEST = 1e-6


def choose_approximations(problem: Problem, choice: Choice) -> dict[str, PricedApproximation]:
    """Fit a clamped line to each sigmoid that has a site, and keep those that do least harm for what they save, by bisection.

    Args:
        problem: with an analysis context of the whole network; without one there are no piecewise-linear sigmoids.
        choice: grids of what the sigmoids read; and the lines, if they are known.

    Returns:
        piecewise-linear sigmoids by operator name, the best bargain first.
    """
    context = problem.context
    if context is None or context.values is not None or not problem.parts.piecewise_linear:
        return {}
    problem.begin("sigmoids")
    feed = {name: value[:_SAMPLES] for name, value in context.feed.items()}
    approximations = _approximations(problem, choice, replace(context, feed=feed))
    with torch.no_grad():

        def answers(hook: Hook | None, first: int = 0, count: int = _SAMPLES) -> dict[str, Tensor]:
            few = {name: value[first : first + count] for name, value in feed.items()}
            return run_samples(context.network, few, hook=hook, workers=context.workers)

        plain = answers(None)
        scores_alone = all(context.losses[name].counts_scores for name in context.losses if name in plain)
        rounded = {} if scores_alone else answers(on_grids(context.quantized_edges, choice.tensors))

        def harmless(count: int) -> bool:
            hook = approximation_hook({name: each.shape for name, each in approximations[:count]})
            known = {n: loss for n, loss in context.losses.items() if n in plain}
            got = {n: plain[n].clone() for n in known}
            for first in range(0, len(next(iter(feed.values()))), _FEW):
                found = answers(hook, first, _FEW)
                if any(n not in found or found[n].shape[1:] != got[n].shape[1:] for n in known):
                    return False
                for n in known:
                    got[n][first : first + _FEW] = found[n]
                # no error takes another back: what is too much on some samples, as if the others stayed the same, is too much on all
                if not all(_alike(plain[n], got[n], rounded.get(n, plain[n]), loss) for n, loss in known.items()):
                    return False
            return True

        fine, harmful = 0, len(approximations) + 1
        tried = len(approximations)
        while harmful - fine > 1:
            fine, harmful = (tried, harmful) if harmless(tried) else (fine, tried)
            tried = (fine + harmful) // 2
    return dict(approximations[:fine])


def _approximations(problem: Problem, choice: Choice, context: AnalysisContext) -> list[tuple[str, PricedApproximation]]:
    """What each site can have, level if that is as good as the sigmoid, by what it changes for what it saves."""
    lines = choice.lines
    if not lines:
        fitted = fitted_lines(problem)
        changes = loss_changes(context, fitted)
        lines = {name: PricedApproximation(shape, changes[name]) for name, shape in fitted.items()}
    possible = {name: line for name, line in lines.items() if _possible(problem.sigmoid_sites[name], line.shape, choice)}
    return sorted(possible.items(), key=lambda item: (item[1].change / _saved(problem.sigmoid_sites[item[0]], item[1].shape), item[0]))


def _possible(site: SigmoidSite, shape: PiecewiseLinear, choice: Choice) -> bool:
    return shape.is_constant or approximation_params(choice.tensors[site.read], shape) is not None


def _saved(site: SigmoidSite, shape: PiecewiseLinear) -> float:
    return site.saved_constant_gate if shape.is_constant else site.saved


def loss_changes(context: AnalysisContext, approximations: Mapping[str, PiecewiseLinear]) -> dict[str, float]:
    """By how much each line, alone, changes the loss of a sample, to second order. Errors of one sign add up, others do not.

    Args:
        context: with a network that can be differentiated.
        approximations: by the name of the sigmoid.

    Returns:
        nats where the outputs are class scores, by the name of the sigmoid.
    """
    wish, result = changes_wish(context.network, approximations, next(iter(context.feed.values())).shape[0], probes=_PROBES)
    if not wish.points:
        return {}
    (parts,) = gathered(context.network, context.feed, context.losses, [wish], probes=_PROBES, seed=context.seed, workers=context.workers)
    return result(parts)


def changes_wish(
    network: Network, approximations: Mapping[str, PiecewiseLinear], samples: int, *, probes: int
) -> tuple[Wish, Callable[[list[dict[str, float]]], dict[str, float]]]:
    """What is wanted of the runs for :func:`loss_changes`, and what makes that of the results.

    Args:
        network: float.
        approximations: as there.
        samples: how many there are.
        probes: random vectors pulled back.
    """
    steps = [step for step in network.steps if step.name in approximations]

    def begin(start: int, values: Mapping[str, Tensor]) -> tuple[Takers, Callable[[], dict[str, float]]]:
        found = dict.fromkeys(approximations, 0.0)
        ends = {step.name: (values[step.inputs[0]], values[step.outputs[0]]) for step in steps}  # which the run backwards holds too

        def take(step: Step, gradient: Tensor) -> None:
            read, gate = ends[step.name]
            off = _line(approximations[step.name], read) - gate
            found[step.name] += float((finite(gradient) * off).flatten(1).sum(1).double().square().sum())

        return {step.outputs[0]: partial(take, step) for step in steps}, lambda: found

    def result(parts: list[dict[str, float]]) -> dict[str, float]:
        return {name: sum(part[name] for part in parts) / (2 * probes * samples) for name in approximations}

    return Wish(tuple(step.inputs[0] for step in steps), tuple(step.outputs[0] for step in steps), samples, begin), result


def fitted_lines(problem: Problem) -> dict[str, PiecewiseLinear]:
    """What is closest to each sigmoid that has a site; a level line if it is as good."""
    sites = problem.sigmoid_sites
    workers = 1 if problem.context is None else problem.context.workers
    return dict(zip(sites, in_order(lambda name: _fitted(problem.tensors[sites[name].read].sample), sites, workers), strict=True))


def _fitted(sample: FloatArray) -> PiecewiseLinear:
    constant_gate = fit_constant_gate(sample)
    return constant_gate if gating_error(sample, constant_gate) <= _MOST_CONSTANT_ERROR else fit_piecewise_linear(sample)


def _alike(wanted: Tensor, got: Tensor, rounded: Tensor, loss: OutputLoss) -> bool:
    finite = torch.isfinite(wanted)
    if wanted.shape != got.shape or not torch.equal(finite, torch.isfinite(got)):
        return False
    if loss.counts_scores and divergence(wanted.movedim(loss.axis, -1), got.movedim(loss.axis, -1)) > _MOST_DIVERGENCE:
        return False
    outputs = (wanted, got, rounded if rounded.shape == wanted.shape else wanted)
    parts = [tuple(x.movedim(loss.axis, 0)[a:b] for x in outputs) for a, b in loss.parts] or [tuple(x[finite] for x in outputs)]
    return all(error_share(w, g) <= (_MOST_ERROR if loss.counts_scores else _allowed(w, r)) for w, g, r in parts)


def _allowed(wanted: Tensor, rounded: Tensor) -> float:
    """The share of its power by which piecewise-linear sigmoids may change a part of an output of values."""
    return min(_MOST_ERROR, _MOST_NOISE * error_share(wanted, rounded))


def approximation_hook(approximations: Mapping[str, PiecewiseLinear]) -> Hook:
    """Lets sigmoids read what makes them piecewise-linear, by step name."""

    def hook(step: Step, _: int, value: Tensor) -> Tensor:
        shape = approximations.get(step.name)
        if shape is None:
            return value
        return torch.logit(_line(shape, value), eps=_SMALLEST)

    return hook


def _line(shape: PiecewiseLinear, x: Tensor) -> Tensor:
    return torch.clamp(shape.slope * x + shape.offset, shape.low, shape.high)
