"""Tensors that a fold rescales and no layer reads: what their grids cost, judged at the tensors themselves.

The output of a layer in front of an activation, an operand of a product, a term of a sum: each is rounded on a grid of
its own, and a fold that suits the layers behind may spread its channels. The error is weighted by the squared gradient
of the loss by the tensor, as layers are judged by that of their outputs (Q-HyViT, arXiv 2303.12557, eq. 6).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from converter.fold import Fold, Member, Site
from converter.grids import Grid
from converter.methods.layer_error import on_grid
from converter.methods.layer_search import scale_candidates
from converter.methods.problem import Problem
from converter.network import run_samples
from converter.study import Study

__all__ = ["Extremes", "Witness", "channel_ranges", "extremes_of", "folded_extremes", "folded_witness", "least_error", "witnesses_of"]

Tensor = torch.Tensor

Extremes = tuple[Tensor, Tensor]
"""Lowest and highest number of each element of a tensor over samples, float32 [elements]."""

_MOST_ELEMENTS = 1 << 12
"""Elements of a tensor at which it is judged, of each sample."""

_EVERY = 4
"""Of the scale candidates, one in so many is tried."""


@dataclass(frozen=True, eq=False)
class Witness:
    """A tensor at some of its elements.

    Attributes:
        places: which elements, int64 [E].
        values: float32 [samples, E].
        importance: float32 [samples, E], scaled so that sums stand for all elements of one sample.
    """

    places: Tensor
    values: Tensor
    importance: Tensor


def witnesses_of(study: Study, feed: Mapping[str, Tensor], importance: Mapping[str, Tensor]) -> dict[str, Witness]:
    """Sample some tensors.

    Args:
        study: with a network that can run.
        feed: samples.
        importance: squared gradients by tensor, the sample axis in front, of the same samples.
    """
    if not importance:
        return {}  # nor can the network be run, perhaps
    values = run_samples(study.network, feed, wanted=list(importance))
    result = {}
    generator = torch.Generator().manual_seed(study.seed)
    for name, weights in importance.items():
        flat = values[name].reshape(weights.shape[0], -1)
        count = flat.shape[1]
        places = torch.randperm(count, generator=generator)[:_MOST_ELEMENTS]
        share = count / (len(places) * flat.shape[0])
        result[name] = Witness(places, flat[:, places], weights.reshape(flat.shape)[:, places] * share)
    return result


def extremes_of(study: Study, names: Iterable[str], feed: Mapping[str, Tensor]) -> dict[str, Extremes]:
    """Extremes of some tensors over samples."""
    wanted = list(dict.fromkeys(names))
    values = study.values or run_samples(study.network, feed, wanted=wanted)
    flat = {name: values[name].reshape(values[name].shape[0], -1) for name in wanted}
    return {name: (x.amin(0), x.amax(0)) for name, x in flat.items()}


def channel_ranges(extremes: Extremes, member: Member, shape: tuple[int, ...], channels: int) -> Extremes:
    """Lowest and highest number of each channel of a site, float32 [channels]; zero for channels that do not occur."""
    index = _flat(member.channels, shape)
    index = torch.where(index >= 0, index, channels)
    nothing = torch.zeros(channels + 1)
    low = nothing.scatter_reduce(0, index, extremes[0], "amin", include_self=False)
    high = nothing.scatter_reduce(0, index, extremes[1], "amax", include_self=False)
    return low[:-1], high[:-1]


def folded_extremes(extremes: Extremes, member: Member, shape: tuple[int, ...], fold: Fold) -> Extremes:
    """The extremes behind a fold."""
    scale, shift = _factors(member, shape, fold)
    return (extremes[0] - shift) / scale, (extremes[1] - shift) / scale


def folded_witness(witness: Witness, member: Member, shape: tuple[int, ...], fold: Fold) -> Witness:
    """The tensor behind a fold; its error counts for as much as the same error did before it was rescaled."""
    scale, shift = (factors[witness.places] for factors in _factors(member, shape, fold))
    return replace(witness, values=(witness.values - shift) / scale, importance=witness.importance * scale.square())


def least_error(problem: Problem, name: str, site: Site, witness: Witness, extremes: Extremes, fold: Fold) -> float:
    """Weighted error of a tensor behind a fold, on the best of a few grids that go by its extremes.

    Args:
        problem: says how wide the grid is.
        name: of the tensor, a member of the site.
        site: to be folded.
        witness: of the tensor as it is now.
        extremes: of the tensor as it is now.
        fold: to be judged.
    """
    (member,) = (m for m in site.members if m.tensor == name)
    shape = problem.tensors[name].shape
    folded = folded_witness(witness, member, shape, fold)
    low, high = folded_extremes(extremes, member, shape, fold)
    grids = scale_candidates(float(low.min()), float(high.max()), problem.bits[name], problem.signed)[3::_EVERY]
    return min(_error(folded, grid) for grid in grids)


def _error(witness: Witness, grid: Grid) -> float:
    return float(((on_grid(witness.values, grid) - witness.values).square() * witness.importance).sum())


def _factors(member: Member, shape: tuple[int, ...], fold: Fold) -> tuple[Tensor, Tensor]:
    """What each element is divided by, after what is subtracted from it."""
    channels = _flat(member.channels, shape)
    powers = _flat(member.powers, shape)
    scale = torch.tensor([*fold.scale, 1.0])[channels] ** powers
    shift = torch.tensor([*fold.shift, 0.0])[channels] if fold.shift and member.shifted else torch.zeros(len(channels))
    return scale, shift


def _flat(numbers: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.broadcast_to(numbers, shape).reshape(-1).astype(np.int64))
