"""Which sigmoids become piecewise-linear: those that save most for what they change, as many as leave the network's answer as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from converter.methods.judging.output_change import divergence, error_share
from converter.methods.judging.output_error import on_grids
from converter.methods.problem import Problem
from converter.plan.choice import Choice
from converter.quantization.parameters import FloatArray
from converter.sensitivity.context import AnalysisContext
from converter.sensitivity.output_loss import OutputLoss
from converter.sensitivity.pull_back import finite, pulled_back
from converter.torch_backend.network import Hook, Step, run_samples
from converter.torch_backend.workers import over_samples
from converter.transforms.sigmoids.piecewise_linear import (
    PiecewiseLinear,
    PricedApproximation,
    SigmoidSite,
    approximation_params,
    fit_constant_gate,
    fit_piecewise_linear,
    gating_error,
)

__all__ = ["approximation_hook", "choose_approximations", "loss_changes"]

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
_PROBES = 4
_SMALLEST = 1e-6


def choose_approximations(problem: Problem, choice: Choice) -> dict[str, PricedApproximation]:
    """Fit a clamped line to each sigmoid that has a site, and keep those that do least harm for what they save, by bisection.

    Args:
        problem: with an analysis context of the whole network; without one there are no piecewise-linear sigmoids.
        choice: grids of what the sigmoids read.

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

        def answers(hook: Hook | None) -> dict[str, Tensor]:
            return run_samples(context.network, feed, hook=hook, workers=context.workers)

        plain, rounded = answers(None), answers(on_grids(context.quantized_edges, choice.tensors))

        def harmless(count: int) -> bool:
            got = answers(approximation_hook({name: each.shape for name, each in approximations[:count]}))
            known = {n: loss for n, loss in context.losses.items() if n in plain}
            return all(n in got and _alike(plain[n], got[n], rounded.get(n, plain[n]), loss) for n, loss in known.items())

        fine, harmful = 0, len(approximations) + 1
        tried = len(approximations)
        while harmful - fine > 1:
            fine, harmful = (tried, harmful) if harmless(tried) else (fine, tried)
            tried = (fine + harmful) // 2
    return dict(approximations[:fine])


def _approximations(problem: Problem, choice: Choice, context: AnalysisContext) -> list[tuple[str, PricedApproximation]]:
    """What each site can have, level if that is as good as the sigmoid, by what it changes for what it saves."""
    fitted = {name: _fitted(problem.tensors[site.read].sample, site) for name, site in problem.sigmoid_sites.items()}
    possible = {
        name: shape
        for name, (shape, _) in fitted.items()
        if shape.is_constant or approximation_params(choice.tensors[problem.sigmoid_sites[name].read], shape) is not None
    }
    changes = loss_changes(context, possible)
    best = sorted(possible, key=lambda name: (changes[name] / fitted[name][1], name))
    return [(name, PricedApproximation(possible[name], changes[name])) for name in best]


def loss_changes(context: AnalysisContext, approximations: Mapping[str, PiecewiseLinear]) -> dict[str, float]:
    """By how much each line, alone, changes the loss of a sample, to second order. Errors of one sign add up, others do not.

    Args:
        context: with a network that can be differentiated.
        approximations: by the name of the sigmoid.

    Returns:
        nats where the outputs are class scores, by the name of the sigmoid.
    """
    steps = [step for step in context.network.steps if step.name in approximations]
    gates, reads = [s.outputs[0] for s in steps], [s.inputs[0] for s in steps]
    made = dict(zip(gates, steps, strict=True))
    total = next(iter(context.feed.values())).shape[0]

    def run(start: int) -> dict[str, float]:
        chunk = {name: value[start : start + context.network.chunk] for name, value in context.feed.items()}
        generator = torch.Generator().manual_seed(context.seed + start)

        def change(gate: str, gradient: Tensor) -> float:
            step = made[gate]
            off = (_line(approximations[step.name], values[step.inputs[0]]) - values[gate]).detach()
            return float((finite(gradient) * off).flatten(1).sum(1).double().square().sum())

        values, pulled = pulled_back(context.network, chunk, context.losses, reads, gates, _PROBES, generator, change)
        found = dict.fromkeys(approximations, 0.0)
        for changes in pulled:
            for gate, each in changes.items():
                found[made[gate].name] += each
        return found

    done = over_samples(run, total, context.network.chunk, context.workers) if steps else []
    return {name: sum(part[name] for part in done) / (2 * _PROBES * total) for name in approximations}


def _fitted(sample: FloatArray, site: SigmoidSite) -> tuple[PiecewiseLinear, float]:
    constant_gate = fit_constant_gate(sample)
    if gating_error(sample, constant_gate) <= _MOST_CONSTANT_ERROR:
        return constant_gate, site.saved_constant_gate
    return fit_piecewise_linear(sample), site.saved


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
