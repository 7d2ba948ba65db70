"""Which gates become ramps: as many of the dearest as leave the network's answer as good as unchanged."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch.nn import functional

from converter import torch_ops
from converter.grids import FloatArray
from converter.methods.problem import Choice, Problem
from converter.network import Hook, Network, Step, run_samples
from converter.ramps import Ramp, RampSite, fit_level, fit_ramp, gating_error, ramp_grid
from converter.sensitivity import loss_kind

__all__ = ["choose_ramps", "divergence", "error_share", "spelled_out", "with_ramps"]

Tensor = torch.Tensor

_MOST_DIVERGENCE = 0.004
"""Nats per position by which ramps may change class scores, all together. Six bits change them by some 0.02."""

_MOST_ERROR = 0.005
"""Share of its power by which they may change any output. Scores that are all alike hardly diverge, whatever happens to them."""

_MOST_LEVEL_ERROR = 0.002
"""Of what a level ramp gates, as a share of its power. With more, a few of them use up what the answer may change."""

_GELU = "Gelu"
_GELU_STEEPNESS = 1.702
"""Of the sigmoid that is closest to its gate (Hendrycks and Gimpel, arXiv 1606.08415, section 2)."""

_SAMPLES = 16
_SMALLEST = 1e-6


def choose_ramps(problem: Problem, choice: Choice) -> dict[str, Ramp]:
    """Fit a ramp to each gate that has a site, and keep those that save most, by bisection on how many.

    Args:
        problem: with a study of the whole network; without one there are no ramps.
        choice: grids of what the gates read.

    Returns:
        ramps by operator name, the dearest first.
    """
    study = problem.study
    if study is None or study.values is not None or not problem.parts.ramps:
        return {}
    ramps = _ramps(problem, study.network, choice)
    feed = {name: value[:_SAMPLES] for name, value in study.feed.items()}
    with torch.no_grad():
        plain = run_samples(study.network, feed)

        def harmless(count: int) -> bool:
            tried = dict(ramps[:count])
            got = run_samples(spelled_out(study.network, tried), feed, hook=with_ramps(tried))
            return all(_alike(plain[n], got[n]) for n in plain)

        fine, harmful = 0, len(ramps) + 1
        count = len(ramps)
        while harmful - fine > 1:
            fine, harmful = (count, harmful) if harmless(count) else (fine, count)
            count = (fine + harmful) // 2
    return dict(ramps[:fine])


def _ramps(problem: Problem, network: Network, choice: Choice) -> list[tuple[str, Ramp]]:
    """What each site can have, level if that is as good as the gate, by what it saves."""
    found = []
    steps = {step.name: step for step in network.steps}
    for name, site in problem.ramp_sites.items():
        shape, saved = _fitted(problem.tensors[site.read].sample, site, steps[name])
        if shape.is_level or ramp_grid(choice.tensors[site.read], shape) is not None:
            found.append((-saved, name, shape))
    return [(name, shape) for _, name, shape in sorted(found, key=lambda item: item[:2])]


def _fitted(sample: FloatArray, site: RampSite, step: Step) -> tuple[Ramp, float]:
    x = torch.from_numpy(sample).double()
    (made,) = torch_ops.apply(step.op_type, [x], step.attributes)
    gelu = step.op_type == _GELU
    gated = (made if gelu else x * made).numpy()
    level = fit_level(sample, gated)
    if site.saved_level > 0.0 and gating_error(sample, gated, level) <= _MOST_LEVEL_ERROR:
        return level, site.saved_level
    return fit_ramp(sample, gated, _GELU_STEEPNESS if gelu else 1.0), site.saved


def spelled_out(network: Network, names: Collection[str]) -> Network:
    """The network with some GELUs as products of what they read with a gate, which has the GELU's name."""
    steps: list[Step] = []
    for step in network.steps:
        if step.op_type != _GELU or step.name not in names:
            steps.append(step)
            continue
        gate = f"{step.outputs[0]}_gate"
        steps.append(Step(step.name, "Sigmoid", step.inputs, (gate,), {}))
        steps.append(Step(f"{step.name}_product", "Mul", (step.inputs[0], gate), step.outputs, {}))
    return replace(network, steps=tuple(steps))


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


def with_ramps(ramps: Mapping[str, Ramp]) -> Hook:
    """Let gates read what makes them ramps."""

    def hook(step: Step, _: int, value: Tensor) -> Tensor:
        shape = ramps.get(step.name)
        if shape is None:
            return value
        line = torch.clamp(shape.slope * value + shape.offset, shape.low, shape.high)
        return torch.logit(line, eps=_SMALLEST)

    return hook
