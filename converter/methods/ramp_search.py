"""Which sigmoids become ramps: as many of the dearest as leave the network's answer as good as unchanged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from converter.grids import FloatArray
from converter.methods.problem import Choice, Problem
from converter.network import Hook, Step, run_samples
from converter.ramps import Ramp, RampSite, fit_level, fit_ramp, gating_error, ramp_grid
from converter.sensitivity import loss_kind

__all__ = ["choose_ramps", "divergence", "error_share", "ramp_hook"]

Tensor = torch.Tensor

_MOST_DIVERGENCE = 0.004
"""Nats per position by which ramps may change class scores, all together. Six bits change them by some 0.02."""

_MOST_ERROR = 0.005
"""Share of its power by which they may change any output. Scores that are all alike hardly diverge, whatever happens to them."""

_MOST_LEVEL_ERROR = 0.002
"""Of what a level ramp gates, as a share of its power. With more, a few of them use up what the answer may change."""

_SAMPLES = 16
_SMALLEST = 1e-6


def choose_ramps(problem: Problem, choice: Choice) -> dict[str, Ramp]:
    """Fit a ramp to each sigmoid that has a site, and keep those that save most, by bisection on how many.

    Args:
        problem: with a study of the whole network; without one there are no ramps.
        choice: grids of what the sigmoids read.

    Returns:
        ramps by operator name, the dearest first.
    """
    study = problem.study
    if study is None or study.values is not None or not problem.parts.ramps:
        return {}
    ramps = _ramps(problem, choice)
    feed = {name: value[:_SAMPLES] for name, value in study.feed.items()}
    with torch.no_grad():
        plain = run_samples(study.network, feed)

        def harmless(count: int) -> bool:
            got = run_samples(study.network, feed, hook=ramp_hook(dict(ramps[:count])))
            return all(_alike(plain[n], got[n]) for n in plain)

        fine, harmful = 0, len(ramps) + 1
        tried = len(ramps)
        while harmful - fine > 1:
            fine, harmful = (tried, harmful) if harmless(tried) else (fine, tried)
            tried = (fine + harmful) // 2
    return dict(ramps[:fine])


def _ramps(problem: Problem, choice: Choice) -> list[tuple[str, Ramp]]:
    """What each site can have, level if that is as good as the sigmoid, by what it saves."""
    found = []
    for name, site in problem.ramp_sites.items():
        shape, saved = _fitted(problem.tensors[site.read].sample, site)
        if shape.is_level or ramp_grid(choice.tensors[site.read], shape) is not None:
            found.append((-saved, name, shape))
    return [(name, shape) for _, name, shape in sorted(found, key=lambda item: item[:2])]


def _fitted(sample: FloatArray, site: RampSite) -> tuple[Ramp, float]:
    level = fit_level(sample)
    if gating_error(sample, level) <= _MOST_LEVEL_ERROR:
        return level, site.saved_level
    return fit_ramp(sample), site.saved


def _alike(wanted: Tensor, got: Tensor) -> bool:
    if loss_kind(wanted.shape[1:]) == "KL divergence" and divergence(wanted, got) > _MOST_DIVERGENCE:
        return False
    return error_share(wanted, got) <= _MOST_ERROR


def divergence(wanted: Tensor, got: Tensor) -> float:
    """KL divergence per position in nats; both tensors are class scores, float32 [..., classes]."""
    p, q = (functional.log_softmax(x.double(), -1) for x in (wanted, got))
    return float((p.exp() * (p - q)).sum(-1).mean())


def error_share(wanted: Tensor, got: Tensor) -> float:
    """Squared error over power; float32, any shape."""
    return float((wanted - got).double().square().sum() / wanted.double().square().sum().clamp(min=1e-30))


def ramp_hook(ramps: Mapping[str, Ramp]) -> Hook:
    """Lets sigmoids read what makes them ramps, by step name."""

    def hook(step: Step, _: int, value: Tensor) -> Tensor:
        shape = ramps.get(step.name)
        if shape is None:
            return value
        line = torch.clamp(shape.slope * value + shape.offset, shape.low, shape.high)
        return torch.logit(line, eps=_SMALLEST)

    return hook
