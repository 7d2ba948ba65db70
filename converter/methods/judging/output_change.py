"""How much a network's outputs have changed, by their losses: for changes that are put to the test instead of estimated."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch.nn import functional

from converter.methods.judging.output_error import on_grids
from converter.methods.problem import Problem
from converter.quantization.parameters import QuantParams
from converter.sensitivity.output_loss import OutputLoss
from converter.torch_backend.network import run_samples

__all__ = ["affordable_samples", "divergence", "error_share", "output_change", "ruins_outputs"]

Tensor = torch.Tensor

_MOST_NUMBERS = 1 << 24
"""Numbers in all tensors of a network and all samples of one trial. Small networks can afford more samples, and need them: what is
rare among few numbers is in few samples."""


_RUIN = 5.0
"""7 dB. Networks in which gradients tell are not near it, at 4 bits neither."""

_FEWEST = 8


def ruins_outputs(problem: Problem, found: Mapping[str, QuantParams], simple: Mapping[str, QuantParams]) -> bool:
    """Whether grids that were found by gradients change the network's outputs far more than simple ones do.

    Gradients are taken at the float network. Where a softmax is saturated there are none, and what its scores lose is not seen.

    Args:
        problem: with an analysis context of the whole network; without one nothing is known, and the answer is no.
        found: by owner.
        simple: the same tensors, from their distribution alone.
    """
    context = problem.context
    if context is None or context.values is not None:
        return False
    feed = {name: value[: affordable_samples(problem, _FEWEST)] for name, value in context.feed.items()}
    with torch.no_grad():
        wanted = run_samples(context.network, feed, workers=context.workers)
        hooks = [on_grids(context.quantized_edges, grids) for grids in (found, simple)]
        runs = [run_samples(context.network, feed, hook=hook, workers=context.workers) for hook in hooks]
    change, usual = (output_change(wanted, got, context.losses) for got in runs)
    return change > _RUIN * usual


def affordable_samples(problem: Problem, fewest: int) -> int:
    """On how many samples a change may be put to the test: no less than so many, and more in a small network."""
    numbers = sum(math.prod(stats.shape) for stats in problem.tensors.values())
    return max(fewest, _MOST_NUMBERS // max(1, numbers))


def output_change(wanted: Mapping[str, Tensor], got: Mapping[str, Tensor], losses: Mapping[str, OutputLoss]) -> float:
    """The loss of some outputs against those of the float network, summed over outputs.

    Args:
        wanted: of the float network; those that it lacks do not count.
        got: of a changed one. Another shape, or infinity and what is no number at other places, is an infinite loss.
        losses: of the outputs.
    """
    return sum(_change(wanted[name], got.get(name), loss) for name, loss in losses.items() if name in wanted)


def _change(wanted: Tensor, got: Tensor | None, loss: OutputLoss) -> float:
    finite = torch.isfinite(wanted)
    if got is None or got.shape != wanted.shape or not torch.equal(finite, torch.isfinite(got)):
        return math.inf
    change = 0.0
    if loss.counts_scores:
        change += loss.score_weight * divergence(wanted.movedim(loss.axis, -1), got.movedim(loss.axis, -1))
    if loss.counts_values:
        wanted, got = (torch.where(finite, x, 0.0) for x in (wanted, got))
        parts = [(w[a:b], g[a:b]) for w, g in [(wanted.movedim(loss.axis, 0), got.movedim(loss.axis, 0))] for a, b in loss.parts]
        shares = [error_share(w, g) for w, g in parts or [(wanted, got)]]
        change += loss.value_weight * sum(shares) / len(shares)
    return change


def divergence(wanted: Tensor, got: Tensor) -> float:
    """KL divergence per position in nats; both tensors are class scores, float32 [..., classes]."""
    p, q = (functional.log_softmax(x.double(), -1) for x in (wanted, got))
    return float(torch.where(p > -math.inf, p.exp() * (p - q), 0.0).sum(-1).mean())


def error_share(wanted: Tensor, got: Tensor) -> float:
    """Squared error over power; float32, any shape."""
    return float((wanted - got).double().square().sum() / wanted.double().square().sum().clamp(min=1e-30))
