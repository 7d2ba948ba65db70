"""Which sigmoids become ramps: as many of the dearest as leave the network's answer as good as unchanged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from converter.methods.problem import Choice, Problem
from converter.network import Hook, Step, run_samples
from converter.ramps import Ramp, fit_ramp, ramp_grid
from converter.sensitivity import loss_kind

__all__ = ["choose_ramps", "divergence", "error_share"]

Tensor = torch.Tensor

_MOST_DIVERGENCE = 0.004
"""Nats per position by which ramps may change class scores, all together. Six bits change them by some 0.02."""

_MOST_ERROR = 0.005
"""Share of its power by which they may change any output. Scores that are all alike hardly diverge, whatever happens to them."""

_SAMPLES = 16
_SMALLEST = 1e-6


def choose_ramps(problem: Problem, choice: Choice) -> dict[str, Ramp]:
    """Fit a ramp to each sigmoid that has a site, and keep those that save most, by bisection on how many.

    Args:
        problem: with a study of the whole network; without one there are no ramps.
        choice: grids of what the sigmoids read.

    Returns:
        ramps by operator name.
    """
    study = problem.study
    if study is None or study.values is not None or not problem.parts.ramps:
        return {}
    fitted = {
        name: (fit_ramp(problem.tensors[site.read].sample), site)
        for name, site in sorted(problem.ramp_sites.items(), key=lambda item: (-item[1].saved, item[0]))
    }
    ramps = [(name, shape) for name, (shape, site) in fitted.items() if ramp_grid(choice.tensors[site.read], shape) is not None]
    feed = {name: value[:_SAMPLES] for name, value in study.feed.items()}
    with torch.no_grad():
        plain = run_samples(study.network, feed)

        def harmless(count: int) -> bool:
            got = run_samples(study.network, feed, hook=_with(dict(ramps[:count])))
            return all(_alike(plain[n], got[n]) for n in plain)

        fine, harmful = 0, len(ramps) + 1
        tried = len(ramps)
        while harmful - fine > 1:
            fine, harmful = (tried, harmful) if harmless(tried) else (fine, tried)
            tried = (fine + harmful) // 2
    return dict(ramps[:fine])


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


def _with(ramps: Mapping[str, Ramp]) -> Hook:
    """Let sigmoids read what makes them ramps."""

    def hook(step: Step, _: int, value: Tensor) -> Tensor:
        shape = ramps.get(step.name)
        if shape is None:
            return value
        line = torch.clamp(shape.slope * value + shape.offset, shape.low, shape.high)
        return torch.logit(line, eps=_SMALLEST)

    return hook
