"""Probes: random vectors whose covariance is the second derivative of the loss by the outputs, for :mod:`.curvature`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch.nn import functional

from converter.sensitivity.output_loss import OutputLoss

__all__ = ["probe"]

Tensor = torch.Tensor


def probe(outputs: Mapping[str, Tensor], losses: Mapping[str, OutputLoss], generator: torch.Generator) -> dict[str, Tensor]:
    """A random vector v for every output, with the mean of v v^T equal to the loss's second derivative; same shapes.

    Args:
        outputs: of the float network, the sample axis in front.
        losses: of the outputs.
        generator: of the signs.
    """
    result = {}
    for name, value in outputs.items():
        loss, scores = losses[name], value.detach()
        vector = torch.zeros_like(scores)
        if loss.counts_scores:
            moved = scores.movedim(loss.axis, -1)
            share = _probabilities(moved)
            owner = share.sqrt() * _signs(moved, generator)
            vector += math.sqrt(loss.score_weight) * (owner - share * owner.sum(-1, keepdim=True)).movedim(-1, loss.axis)
        if loss.counts_values:
            vector += math.sqrt(loss.value_weight) * _signs(scores, generator) * _value_scale(scores, loss)
        result[name] = torch.where(torch.isfinite(scores), vector, 0.0)
    return result


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, like.shape, generator=generator).to(like) * 2 - 1


def _value_scale(values: Tensor, loss: OutputLoss) -> Tensor:
    """One over the root of power times number, of each part; broadcasts to the values."""
    powers, numbers = loss.powers or (1.0,) * max(1, len(loss.parts)), max(1, values[0].numel())
    if not loss.parts:
        return torch.tensor(1.0 / math.sqrt(powers[0] * numbers))
    scale = torch.ones([values.shape[a] if a == values.ndim + loss.axis else 1 for a in range(values.ndim)])
    along = values.shape[loss.axis]
    for (start, stop), power in zip(loss.parts, powers, strict=True):
        count = max(1, numbers * (stop - start) // along)
        scale.movedim(loss.axis, 0)[start:stop] = 1.0 / math.sqrt(power * count * len(loss.parts))
    return scale


def _probabilities(scores: Tensor) -> Tensor:
    """Class probabilities: the scores themselves if a softmax has been applied already."""
    flat = scores.reshape(-1, scores.shape[-1])
    if bool((flat >= 0).all()) and bool((flat.sum(-1) - 1).abs().max() < 1e-3):
        return scores
    return functional.softmax(scores, -1)
