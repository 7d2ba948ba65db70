"""What the outputs of a layer are off on average, where it matters to the loss, and as far as the samples agree on it.

A plain mean is ruled by places that nobody looks at: blank paper around text, what a ReLU cuts off, the ends of ranges
that a search gave up for good reason. So errors count by the size of the loss's gradient at them, for one random vector
pulled back (:mod:`converter.sensitivity.curvature`). Its square, by which candidates are judged, would leave the mean to few places: it
would be the best for these samples and uncertain for others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from converter.sensitivity.context import AnalysisContext
from converter.sensitivity.pull_back import Takers, Wish, gathered, mean_squares
from converter.torch_backend.network import Step

__all__ = ["Places", "certain_mean", "channels_last", "places_that_matter"]

Tensor = torch.Tensor

_PLACES = 256
"""Of each sample. How far a mean over them can be trusted, the samples tell."""


@dataclass(frozen=True)
class Places:
    """Where the errors of a layer's output are looked at.

    Attributes:
        index: int64 [P], the same places of each sample.
        weights: float32 [samples, P, channels], sizes of the loss's gradient there.
    """

    index: Tensor
    weights: Tensor


def channels_last(step: Step, output: Tensor) -> Tensor:
    """A layer's output by places: float32 [samples, ...] to [samples, places, channels]."""
    axis = 2 if step.op_type == "Conv" else output.ndim - 1
    return output.movedim(axis, -1).flatten(1, -2)


def places_that_matter(context: AnalysisContext, names: Sequence[str]) -> dict[str, Places]:
    """Pull the loss back to the outputs of some layers of the float network.

    Args:
        context: the network and its samples.
        names: of the layers.
    """
    wanted = set(names)
    steps = [s for s in context.network.steps if s.name in wanted and context.unsteady.isdisjoint(s.inputs + s.outputs)]
    if not steps:
        return {}

    def begin(start: int, values: Mapping[str, Tensor]) -> tuple[Takers, Callable[[], dict[str, tuple[Tensor, Tensor]]]]:
        like = {step.name: channels_last(step, torch.zeros(()).expand(values[step.outputs[0]].shape)) for step in steps}
        index = {name: _places(x.shape[1], context.seed) for name, x in like.items()}
        takers, squares = mean_squares({step.outputs[0]: partial(_at, step, index[step.name]) for step in steps}, 1)

        def taken() -> dict[str, tuple[Tensor, Tensor]]:
            sums = {s.name: squares.get(s.outputs[0], like[s.name][:, index[s.name]]) for s in steps}
            return {name: (index[name], x.sqrt()) for name, x in sums.items()}

        return takers, taken

    total = next(iter(context.feed.values())).shape[0]
    wish = Wish((), tuple(step.outputs[0] for step in steps), total, begin)
    (done,) = gathered(context.network, context.feed, context.losses, [wish], probes=1, seed=context.seed, workers=context.workers)
    return {name: Places(done[0][name][0], torch.cat([part[name][1] for part in done])) for name in done[0]}


def _places(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:_PLACES].sort().values


def _at(step: Step, index: Tensor, gradient: Tensor) -> Tensor:
    return channels_last(step, gradient)[:, index]


def certain_mean(errors: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean, shrunk by its own variance over its square, as the samples show it; to zero where that is larger.

    That is the non-negative garrote (Breiman, Technometrics 37, 1995); the variance is the jackknife's (Efron, Stein, Annals of
    Statistics 9, 1981), by what the mean would be without each of the samples.

    Args:
        errors: float32 [samples, places, channels].
        weights: not negative, the same shape.

    Returns:
        float32 [channels]; zeros where a single sample has all the weight, of which nobody knows how far it speaks for
        others, and where nothing has any.
    """
    sums, shares = (errors * weights).sum(1).double(), weights.sum(1).double()
    total, samples = shares.sum(0), len(shares)
    mean = torch.where(total > 0, sums.sum(0) / total, 0.0)
    alone = torch.where(shares > 0, torch.inf, 0.0)
    without = torch.where(total > shares, (sums - mean * shares) / (total - shares), alone)
    variance = without.square().sum(0) * (samples - 1) / samples
    kept = torch.where(mean.square() > variance, 1.0 - variance / mean.square(), 0.0)
    return (mean * kept).float()
