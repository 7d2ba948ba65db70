"""Search granularity: which activations get a scale, and a shift, per channel, where folding that is exact.

A candidate is judged as the layers that read the tensor will run: the rows divided by the channels' scales on the best
of a few per-tensor grids, the weights multiplied by them before they are rounded (Q-HyViT, arXiv 2303.12557, section
3.3, granularity; the fold as in RepQ-ViT, arXiv 2212.08254, section 3.2). Between one scale for all channels and one
that follows each channel's range lie its powers, which share the difficulty between activation and weights
(SmoothQuant, arXiv 2211.10438, eq. 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from converter.fold import Fold, Member, Site
from converter.methods.layer_error import Judge, activation_errors
from converter.methods.layer_search import best_weights, scale_candidates
from converter.methods.problem import Problem
from converter.network import Network, Step, run_samples, section
from converter.parallel import in_order
from converter.sensitivity import layer_rows
from converter.study import Study

__all__ = ["choose_folds"]

Tensor = torch.Tensor

_POWERS = (0.5, 1.0)
_SMALLEST_SHARE = 1.0 / 512
"""No channel's scale is smaller beside the largest: what hardly ever moves needs no finer grid."""

_WORTHWHILE = 0.5
"""A fold must leave no more than this share of the error."""

_EVERY = 4
"""Of the scale candidates, one in so many is tried here."""


@dataclass(frozen=True)
class _Use:
    """A layer that reads a rescaled tensor.

    Attributes:
        tensor: which it reads.
        name: of the layer.
        channels: site channel of each row element, int64 [G, K]; -1 for none.
        judge: the layer.
        bits: of the tensor's grid and of the weights; 0 where the weights stay float.
    """

    tensor: str
    name: str
    channels: Tensor
    judge: Judge
    bits: tuple[int, int]


def choose_folds(problem: Problem, judges: Mapping[str, Judge], feed: Mapping[str, Tensor]) -> dict[str, Fold]:
    """The folds that lessen the weighted error of the layers behind them.

    Args:
        problem: with a study.
        judges: of the layers.
        feed: samples that give the channels' ranges. They should not be those of the judges: a channel that happens to be
            silent on a few samples would seem to need next to no range, and be cut off on others.
    """
    study = problem.study
    assert study is not None
    steps = {s.name: s for s in study.network.steps}
    result: dict[str, Fold] = {}
    taken: set[str] = set()
    for name, site in problem.sites.items():
        if site.kind != "fold":
            continue
        uses = _uses(problem, study, site, judges, steps)
        if not uses or taken.intersection(u.tensor for u in uses):
            continue
        plain = _error(problem, uses, Fold((1.0,) * site.channels))
        candidates = _candidates(site, _ranges(problem, study, site, uses, feed))
        errors = list(in_order(partial(_error, problem, uses), candidates, study.workers))
        if errors and min(errors) < _WORTHWHILE * plain:
            result[name] = candidates[int(np.argmin(errors))]
            taken.update(u.tensor for u in uses)
    return result


def _uses(problem: Problem, study: Study, site: Site, judges: Mapping[str, Judge], steps: Mapping[str, Step]) -> list[_Use]:
    members = {m.tensor: m for m in site.members}
    uses = []
    for name, judge in judges.items():
        step = steps[name]
        member = members.get(step.inputs[0])
        reading = study.readings.get((name, 0))
        if member is None or reading is None or step.inputs[1] not in study.network.constants or (member.powers < 0).any():
            continue
        channels = _row_channels(step, study.network, member, problem.tensors[step.inputs[0]].shape)
        weights = problem.constants[name, 1].bits if name in study.weights else 0
        if channels is not None:
            uses.append(_Use(step.inputs[0], name, channels, judge, (problem.bits[reading.root], weights)))
    return uses


def _row_channels(step: Step, network: Network, member: Member, shape: tuple[int, ...]) -> Tensor | None:
    """Site channel of each element of the rows, int64 [G, K]; None if it depends on the place."""
    numbers = torch.from_numpy(np.broadcast_to(member.channels, shape).astype(np.float32) + 1.0)
    rows = layer_rows(step, numbers[None], network.constants[step.inputs[1]], None)
    highest = rows.amax(1)
    # zeros are the padding around a map
    same = ((rows == highest[:, None]) | (rows == 0)).all()
    return highest.long() - 1 if bool(same) else None


def _ranges(problem: Problem, study: Study, site: Site, uses: Sequence[_Use], feed: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Lowest and highest number of each channel, float32 [channels], of each tensor that is used."""
    tensors = list(dict.fromkeys(u.tensor for u in uses))
    members = {m.tensor: m for m in site.members}
    values = study.values or run_samples(section(study.network, tensors, ()), feed, wanted=tensors)
    ranges = []
    for name in tensors:
        shape = problem.tensors[name].shape
        index = torch.from_numpy(np.broadcast_to(members[name].channels, shape).reshape(-1).astype(np.int64))
        index = torch.where(index >= 0, index, site.channels)
        flat = values[name].reshape(-1, index.numel())
        nothing = torch.zeros(site.channels + 1)
        low = nothing.scatter_reduce(0, index, flat.amin(0), "amin", include_self=False)
        high = nothing.scatter_reduce(0, index, flat.amax(0), "amax", include_self=False)
        ranges.append((low[:-1], high[:-1]))
    return ranges


def _candidates(site: Site, ranges: Sequence[tuple[Tensor, Tensor]]) -> list[Fold]:
    folds = [Fold(_scales([torch.maximum(low.abs(), high.abs()) for low, high in ranges], power)) for power in _POWERS]
    if site.shift and len(ranges) == 1:
        low, high = ranges[0]
        middle = tuple(float(np.float32(m)) for m in (low + high) / 2)
        folds.append(Fold((1.0,) * site.channels, middle))
        folds += [Fold(_scales([(high - low) / 2], power), middle) for power in _POWERS]
    return folds


def _scales(reaches: Sequence[Tensor], power: float) -> tuple[float, ...]:
    """Each channel's share of the largest reach, its mean over tensors, to a power."""
    logs = []
    for reach in reaches:
        largest = float(reach.max())
        logs.append(torch.log((reach / largest if largest > 0 else torch.ones_like(reach)).clamp(min=_SMALLEST_SHARE)))
    share = torch.exp(power * torch.stack(logs).mean(0))
    return tuple(float(np.float32(s)) for s in share)


def _error(problem: Problem, uses: Sequence[_Use], fold: Fold) -> float:
    """Weighted error of all uses, each tensor on its best grid."""
    folded = [(u, _folded(u, fold)) for u in uses]
    total = 0.0
    for tensor in dict.fromkeys(u.tensor for u in uses):
        mine = [(u, judge) for u, judge in folded if u.tensor == tensor]
        low = min(float(judge.left.min()) for _, judge in mine)
        high = max(float(judge.left.max()) for _, judge in mine)
        grids = scale_candidates(low, high, mine[0][0].bits[0], problem.signed)[3::_EVERY]
        errors = torch.zeros(len(grids), dtype=torch.float64)
        for use, judge in mine:
            weights = best_weights(judge, judge.left, use.bits[1])[1] if use.bits[1] else judge.right
            errors += activation_errors(judge, 0, weights, grids)
        total += float(errors.min())
    return total


def _folded(use: _Use, fold: Fold) -> Judge:
    """The layer as it is after a fold, without what goes to its bias."""
    scale = torch.tensor([*fold.scale, 1.0])[use.channels]
    shift = torch.tensor([*(fold.shift or (0.0,) * len(fold.scale)), 0.0])[use.channels]
    left = (use.judge.left - shift[:, None]) / scale[:, None]
    right = use.judge.right * scale[:, :, None]
    return Judge(left, right, left @ right, use.judge.importance)
