"""Tensors that an equalization rescales and no layer reads: how far it spreads their channels, and what that costs.

The output of a layer in front of an activation, an operand of a product, a term of a sum: each is rounded on a grid of
its own, and an equalization that suits the layers behind may be bad for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch

from converter.methods.judging.range_candidates import scale_candidates
from converter.methods.judging.tensor_error import TensorSample, grid_errors
from converter.methods.problem import Problem
from converter.sensitivity.context import AnalysisContext
from converter.torch_backend.network import run_samples
from converter.torch_backend.workers import in_order
from converter.transforms.equalization.site import Equalization, EqualizationSite, Member

__all__ = ["Extremes", "channel_ranges", "equalized_extremes", "equalized_sample", "extremes_of", "least_error"]

Tensor = torch.Tensor

Extremes = tuple[Tensor, Tensor]
"""Lowest and highest number of each element of a tensor over samples, float32 [elements]."""

_EVERY = 4
"""Of the scale candidates, one in so many is tried."""


def extremes_of(context: AnalysisContext, names: Iterable[str], feed: Mapping[str, Tensor]) -> dict[str, Extremes]:
    """Extremes of some tensors over samples."""
    wanted = list(dict.fromkeys(names))

    def some(start: int) -> dict[str, Extremes]:
        part = {name: value[start : start + context.network.most_at_once] for name, value in feed.items()}
        values = context.values or run_samples(context.network, part, wanted=wanted)
        flat = {name: values[name].reshape(values[name].shape[0], -1) for name in wanted}
        return {name: (x.amin(0), x.amax(0)) for name, x in flat.items()}

    samples = next(iter(feed.values())).shape[0]
    parts = in_order(some, range(0, samples, context.network.most_at_once), context.workers)
    found = next(parts)
    for part in parts:  # one at a time: those of all samples would be as many numbers as the tensors have on all of them
        for name, (low, high) in part.items():
            found[name] = torch.minimum(found[name][0], low), torch.maximum(found[name][1], high)
    return found


def channel_ranges(extremes: Extremes, member: Member, shape: tuple[int, ...], channels: int, power: int = 1) -> Extremes | None:
    """Lowest and highest number of each channel of a site among the elements that take its scale to a power.

    Returns:
        float32 [channels] each, zero for channels that do not occur; None if there are no such elements.
    """
    index = torch.where(_flat(member.powers, shape) == power, _flat(member.channels, shape), -1)
    if not bool((index >= 0).any()):
        return None
    index = torch.where(index >= 0, index, channels)
    nothing = torch.zeros(channels + 1)
    low = nothing.scatter_reduce(0, index, extremes[0], "amin", include_self=False)
    high = nothing.scatter_reduce(0, index, extremes[1], "amax", include_self=False)
    return low[:-1], high[:-1]


def equalized_extremes(extremes: Extremes, member: Member, shape: tuple[int, ...], equalization: Equalization) -> Extremes:
    """The extremes behind an equalization."""
    scale, shift = _factors(member, shape, equalization)
    return (extremes[0] - shift) / scale, (extremes[1] - shift) / scale


def equalized_sample(tensor_sample: TensorSample, member: Member, shape: tuple[int, ...], equalization: Equalization) -> TensorSample:
    """The tensor behind an equalization; its error counts for as much as the same error did before it was rescaled."""
    scale, shift = (factors[tensor_sample.places] for factors in _factors(member, shape, equalization))
    return replace(tensor_sample, values=(tensor_sample.values - shift) / scale, fisher=tensor_sample.fisher * scale.square())


def least_error(
    problem: Problem, name: str, site: EqualizationSite, tensor_sample: TensorSample, extremes: Extremes, equalization: Equalization
) -> float:
    """Weighted error of a tensor behind an equalization, on the best of a few grids that go by its extremes.

    Args:
        problem: says how wide the grid is.
        name: of the tensor, a member of the site.
        site: to be equalized.
        tensor_sample: of the tensor as it is now.
        extremes: of the tensor as it is now.
        equalization: to be judged.
    """
    (member,) = (m for m in site.members if m.tensor == name)
    shape = problem.tensors[name].shape
    equalized = equalized_sample(tensor_sample, member, shape, equalization)
    low, high = equalized_extremes(extremes, member, shape, equalization)
    grids = scale_candidates(float(low.min()), float(high.max()), problem.bits[name], problem.signed)[3::_EVERY]
    return float(grid_errors(equalized, grids).min())


def _factors(member: Member, shape: tuple[int, ...], equalization: Equalization) -> tuple[Tensor, Tensor]:
    """What each element is divided by, after what is subtracted from it."""
    channels = _flat(member.channels, shape)
    powers = _flat(member.powers, shape)
    scale = torch.tensor([*equalization.scale, 1.0])[channels] ** powers
    shift = torch.tensor([*equalization.shift, 0.0])[channels] if equalization.shift and member.shifted else torch.zeros(len(channels))
    return scale, shift


def _flat(numbers: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.broadcast_to(numbers, shape).reshape(-1).astype(np.int64))
