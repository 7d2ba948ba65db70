"""Which sigmoids become ramps: those that save most for what they change, as many as leave the network's answer as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from converter.methods.judging.output_change import divergence, error_share
from converter.methods.judging.output_error import on_grids
from converter.methods.problem import Problem
from converter.plan.choice import Choice
from converter.quantization.parameters import FloatArray
from converter.sensitivity.context import Study
from converter.sensitivity.curvature import pulled_back
from converter.sensitivity.output_loss import OutputLoss
from converter.torch_backend.network import Hook, Step, run_samples
from converter.torch_backend.workers import in_order
from converter.transforms.sigmoids.piecewise_linear import PricedRamp, Ramp, RampSite, fit_level, fit_ramp, gating_error, ramp_grid

__all__ = ["choose_ramps", "loss_changes", "ramp_hook"]

Tensor = torch.Tensor

_MOST_DIVERGENCE = 0.0008
"""Nats per position by which ramps may change class scores, all together."""

_MOST_ERROR = 0.005
"""Share of its power by which they may change any output. Scores that are all alike hardly diverge, whatever happens to them."""

_MOST_NOISE = 1.0
"""Times what the grids of tensors change already, by which they may change an output that is no class scores: there every error counts."""

_MOST_LEVEL_ERROR = 0.002
"""Of what a level ramp gates, as a share of its power. With more, a few of them use up what the answer may change."""

_SAMPLES = 16
_PROBES = 4
_SMALLEST = 1e-6


def choose_ramps(problem: Problem, choice: Choice) -> dict[str, PricedRamp]:
    """Fit a ramp to each sigmoid that has a site, and keep those that do least harm for what they save, by bisection on how many.

    Args:
        problem: with a study of the whole network; without one there are no ramps.
        choice: grids of what the sigmoids read.

    Returns:
        ramps by operator name, the best bargain first.
    """
    study = problem.study
    if study is None or study.values is not None or not problem.parts.ramps:
        return {}
    feed = {name: value[:_SAMPLES] for name, value in study.feed.items()}
    ramps = _ramps(problem, choice, replace(study, feed=feed))
    with torch.no_grad():
        plain = run_samples(study.network, feed)
        rounded = run_samples(study.network, feed, hook=on_grids(study.readings, choice.tensors))

        def harmless(count: int) -> bool:
            got = run_samples(study.network, feed, hook=ramp_hook({name: each.shape for name, each in ramps[:count]}))
            known = {n: loss for n, loss in study.losses.items() if n in plain}
            return all(n in got and _alike(plain[n], got[n], rounded.get(n, plain[n]), loss) for n, loss in known.items())

        fine, harmful = 0, len(ramps) + 1
        tried = len(ramps)
        while harmful - fine > 1:
            fine, harmful = (tried, harmful) if harmless(tried) else (fine, tried)
            tried = (fine + harmful) // 2
    return dict(ramps[:fine])


def _ramps(problem: Problem, choice: Choice, study: Study) -> list[tuple[str, PricedRamp]]:
    """What each site can have, level if that is as good as the sigmoid, by what it changes for what it saves."""
    fitted = {name: _fitted(problem.tensors[site.read].sample, site) for name, site in problem.ramp_sites.items()}
    possible = {
        name: shape
        for name, (shape, _) in fitted.items()
        if shape.is_level or ramp_grid(choice.tensors[problem.ramp_sites[name].read], shape) is not None
    }
    changes = loss_changes(study, possible)
    best = sorted(possible, key=lambda name: (changes[name] / fitted[name][1], name))
    return [(name, PricedRamp(possible[name], changes[name])) for name in best]


def loss_changes(study: Study, ramps: Mapping[str, Ramp]) -> dict[str, float]:
    """By how much each ramp, alone, changes the loss of a sample, to second order. Errors of one sign add up, others do not.

    Args:
        study: with a network that can be differentiated.
        ramps: by the name of the sigmoid.

    Returns:
        nats where the outputs are class scores, by the name of the sigmoid.
    """
    steps = [step for step in study.network.steps if step.name in ramps]
    gates, reads = [s.outputs[0] for s in steps], [s.inputs[0] for s in steps]
    total = next(iter(study.feed.values())).shape[0]

    def run(start: int) -> dict[str, float]:
        chunk = {name: value[start : start + study.network.chunk] for name, value in study.feed.items()}
        generator = torch.Generator().manual_seed(study.seed + start)
        values, pulled = pulled_back(study.network, chunk, study.losses, reads, gates, _PROBES, generator)
        found = dict.fromkeys(ramps, 0.0)
        for gradients in pulled:
            for step in steps:
                if step.outputs[0] in gradients:
                    off = (_line(ramps[step.name], values[step.inputs[0]]) - values[step.outputs[0]]).detach()
                    found[step.name] += float((gradients[step.outputs[0]] * off).flatten(1).sum(1).double().square().sum())
        return found

    done = list(in_order(run, range(0, total, study.network.chunk), study.workers)) if steps else []
    return {name: sum(part[name] for part in done) / (2 * _PROBES * total) for name in ramps}


def _fitted(sample: FloatArray, site: RampSite) -> tuple[Ramp, float]:
    level = fit_level(sample)
    if gating_error(sample, level) <= _MOST_LEVEL_ERROR:
        return level, site.saved_level
    return fit_ramp(sample), site.saved


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
    """The share of its power by which ramps may change a part of an output of values."""
    return min(_MOST_ERROR, _MOST_NOISE * error_share(wanted, rounded))


def ramp_hook(ramps: Mapping[str, Ramp]) -> Hook:
    """Lets sigmoids read what makes them ramps, by step name."""

    def hook(step: Step, _: int, value: Tensor) -> Tensor:
        shape = ramps.get(step.name)
        if shape is None:
            return value
        return torch.logit(_line(shape, value), eps=_SMALLEST)

    return hook


def _line(shape: Ramp, x: Tensor) -> Tensor:
    return torch.clamp(shape.slope * x + shape.offset, shape.low, shape.high)
