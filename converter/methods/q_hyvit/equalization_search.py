"""Search granularity: which activations get a scale, and a shift, per channel, where folding that is exact.

A candidate is judged as the layers that read the tensor will run: the rows divided by the channels' scales on the best
of a few per-tensor grids, the weights multiplied by them before they are rounded (Q-HyViT, arXiv 2303.12557, section
3.3, granularity; the equalization as in RepQ-ViT, arXiv 2212.08254, section 3.2). Between one scale for all channels and one
that follows each channel's range lie its powers, which share the difficulty between activation and weights
(SmoothQuant, arXiv 2211.10438, eq. 4).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from converter.graph.operator_sets import LAYERS
from converter.methods.judging.layer_search import best_weights
from converter.methods.judging.output_error import LayerReconstruction, activation_errors
from converter.methods.judging.range_candidates import scale_candidates
from converter.methods.judging.tensor_error import TensorSample
from converter.methods.problem import Problem
from converter.methods.q_hyvit.equalization_error import (
    Extremes,
    channel_ranges,
    equalized_extremes,
    equalized_sample,
    extremes_of,
    least_error,
)
from converter.sensitivity.context import AnalysisContext
from converter.sensitivity.layer_samples import layer_rows
from converter.torch_backend.network import Network, Step
from converter.torch_backend.workers import in_order
from converter.transforms.equalization.site import Equalization, EqualizationSite, Member

__all__ = ["choose_equalizations", "reconstructed_tensors"]

Tensor = torch.Tensor

_POWERS = (0.5, 1.0)
_SMALLEST_SHARE = 1.0 / 512
"""No channel's scale is smaller beside the largest: what hardly ever moves needs no finer grid."""

_WORTHWHILE = 0.5
"""An equalization must leave no more than this share of the error."""

_FEWEST_NUMBERS = 32
"""Of a channel on the samples that give its range, if that range shall be moved to zero: others lie elsewhere."""

_FEWEST_TO_FOLLOW = 8
"""The same, if a scale shall follow that range closely."""

_EVERY = 4
"""Of the scale candidates, one in so many is tried here."""


@dataclass(frozen=True)
class _Use:
    """A layer that reads a rescaled tensor.

    Attributes:
        tensor: which it reads.
        name: of the layer.
        channels: site channel of each row element, int64 [G, K]; -1 for none.
        reconstruction: the layer.
        bits: of the tensor's grid and of the weights; 0 where the weights stay float.
    """

    tensor: str
    name: str
    channels: Tensor
    reconstruction: LayerReconstruction
    bits: tuple[int, int]


def reconstructed_tensors(problem: Problem, context: AnalysisContext) -> list[str]:
    """Tensors with a grid of their own that an equalization would rescale and that no layer with weights reads."""
    rounded = {quantized_edge.owner for quantized_edge in context.quantized_edges.values()}
    layers = {
        s.inputs[0]
        for s in context.network.steps
        if (s.name, 0) in context.quantized_edges and s.op_type in LAYERS and _weighted(s, context)
    }
    members = dict.fromkeys(m.tensor for site in problem.sites.values() for m in site.members)
    return [name for name in members if name in rounded and name not in layers and name in problem.bits]


def choose_equalizations(
    problem: Problem,
    reconstructions: Mapping[str, LayerReconstruction],
    feed: Mapping[str, Tensor],
    tensor_samples: Mapping[str, TensorSample] | None = None,
) -> dict[str, Equalization]:
    """The equalizations that lessen the weighted error of the layers behind them, and of the other tensors that they rescale.

    Args:
        problem: with an analysis context.
        reconstructions: of the layers.
        feed: samples that give the channels' ranges. They should not be those of the layer reconstructions: a channel that happens to be
            silent on a few samples would seem to need next to no range, and be cut off on others.
        tensor_samples: of tensors that no layer reads, where they can be judged.
    """
    context = problem.context
    assert context is not None
    seen = dict(tensor_samples or {})
    sites = problem.sites
    steps = {s.name: s for s in context.network.steps}
    uses = {name: _uses(problem, context, site, reconstructions, steps) for name, site in sites.items()}
    extremes = extremes_of(context, [*seen, *(u.tensor for some in uses.values() for u in some)], feed)
    result: dict[str, Equalization] = {}
    taken: set[str] = set()
    for place, (name, site) in enumerate(sites.items()):
        problem.progress(place, len(sites))
        numbers = _numbers_each(problem, site, feed)
        site = replace(site, shift=site.shift and numbers >= _FEWEST_NUMBERS)
        unread = {m.tensor: m for m in site.members if m.tensor in seen}
        # the square root of a range leaves every channel but the loudest room beyond it
        rescaled = _Rescaled(site, uses[name], unread, _POWERS if numbers >= _FEWEST_TO_FOLLOW else _POWERS[:1])
        if taken.intersection(u.tensor for u in rescaled.uses) or not (rescaled.uses or rescaled.unread):
            continue
        equalization = _best_equalization(problem, rescaled, seen, extremes)
        if equalization is None:
            continue
        result[name] = equalization
        taken.update(u.tensor for u in rescaled.uses)
        for tensor, member in rescaled.unread.items():
            shape = problem.tensors[tensor].shape
            seen[tensor] = equalized_sample(seen[tensor], member, shape, equalization)
            extremes[tensor] = equalized_extremes(extremes[tensor], member, shape, equalization)
    return result


def _numbers_each(problem: Problem, site: EqualizationSite, feed: Mapping[str, Tensor]) -> float:
    """How many numbers of each channel the samples hold."""
    samples = next(iter(feed.values())).shape[0]
    return samples * math.prod(problem.tensors[site.tensor].shape) / site.channels


@dataclass(frozen=True)
class _Rescaled:
    """What a site rescales: the layers that read it, and the tensors that none reads; and the powers of ranges to try."""

    site: EqualizationSite
    uses: list[_Use]
    unread: dict[str, Member]
    powers: tuple[float, ...]


def _best_equalization(
    problem: Problem, rescaled: _Rescaled, seen: Mapping[str, TensorSample], extremes: Mapping[str, Extremes]
) -> Equalization | None:
    """The best candidate if it is worthwhile."""
    context = problem.context
    assert context is not None

    def error(equalization: Equalization) -> float:
        unread = sum(least_error(problem, n, rescaled.site, seen[n], extremes[n], equalization) for n in rescaled.unread)
        return _error(problem, rescaled.uses, equalization) + unread

    candidates = _candidates(problem, rescaled, extremes)
    plain, *errors = in_order(error, [Equalization((1.0,) * rescaled.site.channels), *candidates], context.workers)
    return candidates[int(np.argmin(errors))] if errors and min(errors) < _WORTHWHILE * plain else None


def _weighted(step: Step, context: AnalysisContext) -> bool:
    return step.inputs[1] in context.network.constants


def _members(problem: Problem, site: EqualizationSite) -> dict[str, Member]:
    """What the layers behind a site read rescaled; behind an inserted multiplication that is its key, channel by channel."""
    if not site.inserted:
        return {m.tensor: m for m in site.members}
    sizes = [1] * len(problem.tensors[site.tensor].shape)
    assert site.axis is not None
    sizes[site.axis] = site.channels
    numbers = np.arange(site.channels).reshape(sizes)
    return {site.tensor: Member(site.tensor, numbers, np.ones_like(numbers), shifted=False)}


def _uses(
    problem: Problem,
    context: AnalysisContext,
    site: EqualizationSite,
    reconstructions: Mapping[str, LayerReconstruction],
    steps: Mapping[str, Step],
) -> list[_Use]:
    members = _members(problem, site)
    uses = []
    for name, reconstruction in reconstructions.items():
        step = steps[name]
        member = members.get(step.inputs[0])
        quantized_edge = context.quantized_edges.get((name, 0))
        if member is None or quantized_edge is None or step.inputs[1] not in context.network.constants or (member.powers < 0).any():
            continue
        channels = _row_channels(step, context.network, member, problem.tensors[step.inputs[0]].shape)
        weights = problem.constants[name, 1].bits if name in context.weights else 0
        if channels is not None:
            uses.append(_Use(step.inputs[0], name, channels, reconstruction, (problem.bits[quantized_edge.owner], weights)))
    return uses


def _row_channels(step: Step, network: Network, member: Member, shape: tuple[int, ...]) -> Tensor | None:
    """Site channel of each element of the rows, int64 [G, K]; None if it depends on the place."""
    numbers = torch.from_numpy(np.broadcast_to(member.channels, shape).astype(np.float32) + 1.0)
    rows = layer_rows(step, numbers[None], network.constants[step.inputs[1]], None)
    highest = rows.amax(1)
    # zeros are the padding around a map
    same = ((rows == highest[:, None]) | (rows == 0)).all()
    return highest.long() - 1 if bool(same) else None


def _candidates(problem: Problem, rescaled: _Rescaled, extremes: Mapping[str, Extremes]) -> list[Equalization]:
    """Scales that follow the ranges in the layers, those in all tensors, and those that spread no tensor further."""
    site = rescaled.site
    members = _members(problem, site)
    names = list(dict.fromkeys(u.tensor for u in rescaled.uses))

    def ranges(tensors: Iterable[str], power: int) -> list[Extremes]:
        every = (channel_ranges(extremes[t], members[t], problem.tensors[t].shape, site.channels, power) for t in tensors)
        return [some for some in every if some is not None]

    read = ranges(names, 1)
    divided, multiplied = [*read, *ranges(rescaled.unread, 1)], ranges(rescaled.unread, -1)
    everywhere = _mean([*map(_shares, map(_reach, divided)), *(-_shares(_reach(r)) for r in multiplied)])
    means = [_mean(_shares(_reach(r)) for r in read)] if read else []
    widest = [torch.stack([_shares(_reach(r)) for r in divided]).amax(0)] if len(divided) > 1 else []
    scales = list(dict.fromkeys(_scales(logs, power) for logs in (*means, everywhere, *widest) for power in rescaled.powers))
    equalizations = [Equalization(scale) for scale in scales]
    if site.shift and len(read) == 1:
        low, high = read[0]
        middle = tuple(float(np.float32(m)) for m in (low + high) / 2)
        equalizations.append(Equalization((1.0,) * site.channels, middle))
        equalizations += [Equalization(_scales(_shares((high - low) / 2), power), middle) for power in rescaled.powers]
    return equalizations


def _reach(ranges: Extremes) -> Tensor:
    return torch.maximum(ranges[0].abs(), ranges[1].abs())


def _shares(reach: Tensor) -> Tensor:
    """Logarithm of each channel's share of the largest reach."""
    largest = float(reach.max())
    return torch.log((reach / largest if largest > 0 else torch.ones_like(reach)).clamp(min=_SMALLEST_SHARE))


def _mean(logs: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(logs)).mean(0)


def _scales(logs: Tensor, power: float) -> tuple[float, ...]:
    """Shares to a power, the largest of them 1."""
    return tuple(float(np.float32(s)) for s in torch.exp(power * (logs - logs.max())))


def _error(problem: Problem, uses: Sequence[_Use], equalization: Equalization) -> float:
    """Weighted error of all uses, each tensor on its best grid."""
    equalized = [(u, _equalized(u, equalization)) for u in uses]
    total = 0.0
    for tensor in dict.fromkeys(u.tensor for u in uses):
        mine = [(u, reconstruction) for u, reconstruction in equalized if u.tensor == tensor]
        low = min(float(reconstruction.left.min()) for _, reconstruction in mine)
        high = max(float(reconstruction.left.max()) for _, reconstruction in mine)
        grids = scale_candidates(low, high, mine[0][0].bits[0], problem.signed)[3::_EVERY]
        errors = torch.zeros(len(grids), dtype=torch.float64)
        for use, reconstruction in mine:
            weights = best_weights(reconstruction, reconstruction.left, use.bits[1])[1] if use.bits[1] else reconstruction.right
            errors += activation_errors(reconstruction, 0, weights, grids)
        total += float(errors.min())
    return total


def _equalized(use: _Use, equalization: Equalization) -> LayerReconstruction:
    """The layer as it is after an equalization, without what goes to its bias."""
    scale = torch.tensor([*equalization.scale, 1.0])[use.channels]
    shift = torch.tensor([*(equalization.shift or (0.0,) * len(equalization.scale)), 0.0])[use.channels]
    left = (use.reconstruction.left - shift[:, None]) / scale[:, None]
    right = use.reconstruction.right * scale[:, :, None]
    return LayerReconstruction(left, right, left @ right, use.reconstruction.fisher)
