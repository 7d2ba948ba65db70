"""Tensors that no layer reads: what their grids cost, judged at the tensors themselves.

The error is weighted by the squared gradient of the loss by the tensor, as layers are judged by that of their outputs
(Q-HyViT, arXiv 2303.12557, eq. 6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from converter.grids import Grid
from converter.methods.candidates import scale_candidates
from converter.parallel import in_order
from converter.sensitivity import backward
from converter.study import Study

__all__ = ["Witness", "best_grid", "grid_errors", "thinned_witness", "witnesses_of"]

Tensor = torch.Tensor

_MOST_ELEMENTS = 1 << 12
"""Elements of a tensor at which it is judged, of each sample."""

_CHUNK = 2
"""Samples run at once."""

_PROBES = 2
_COARSE = 8
_MOST_PLAIN = 1.5
"""An unweighted error this many times the least is too much."""

_AT_ONCE = 1 << 20


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


def witnesses_of(study: Study, names: Sequence[str], feed: Mapping[str, Tensor]) -> dict[str, Witness]:
    """Run the float network forwards and backwards and keep some elements of some tensors.

    Args:
        study: with a network that can be differentiated; for another there are no witnesses.
        names: of the tensors.
        feed: samples by input name, the sample axis in front.
    """
    if study.values is not None or not names:
        return {}
    total = next(iter(feed.values())).shape[0]

    def run(start: int) -> dict[str, Witness]:
        chunk = {name: value[start : start + _CHUNK] for name, value in feed.items()}
        values, squares = backward(study.network, (), chunk, names, _PROBES, torch.Generator().manual_seed(study.seed + start))
        generator = torch.Generator().manual_seed(study.seed)  # the same places of all samples
        return {name: _sampled(values[name], squares[name], total, generator) for name in names}

    done = list(in_order(run, range(0, total, _CHUNK), study.workers))
    return {name: _joined([some[name] for some in done]) for name in names}


def _sampled(values: Tensor, squares: Tensor, total: int, generator: torch.Generator) -> Witness:
    flat = values.reshape(values.shape[0], -1)
    count = flat.shape[1]
    places = torch.randperm(count, generator=generator)[:_MOST_ELEMENTS]
    return Witness(places, flat[:, places], squares.reshape(flat.shape)[:, places] * (count / (len(places) * total)))


def _joined(parts: Sequence[Witness]) -> Witness:
    return Witness(parts[0].places, torch.cat([p.values for p in parts]), torch.cat([p.importance for p in parts]))


def grid_errors(witness: Witness, grids: Sequence[Grid]) -> Tensor:
    """Weighted error of a tensor on each of many per-tensor grids of one width and container; float64 [candidates]."""
    x, weights = witness.values.reshape(-1), witness.importance.reshape(-1)
    scale = torch.tensor([g.scale[0] for g in grids])[:, None]
    zero = torch.tensor([float(g.zero_point[0]) for g in grids])[:, None]
    low, high = grids[0].qmin - zero, grids[0].qmax - zero
    step = max(1, _AT_ONCE // x.numel())
    parts = []
    for start in range(0, len(grids), step):
        part = slice(start, start + step)
        rounded = torch.div(x, scale[part]).round_().clamp_(low[part], high[part]).mul_(scale[part])
        parts.append(rounded.sub_(x).square_().mul_(weights).double().sum(1))
    return torch.cat(parts)


def best_grid(witness: Witness, start: Grid, low: float, high: float) -> Grid:
    """The grid of least weighted error among those of little error without weights.

    Squared gradients count the errors of all elements as if they were independent. Those of numbers that are cut off are
    not: they have one sign, and add up. The second error keeps such grids out.

    Args:
        witness: the tensor.
        start: a grid that is judged too.
        low: least number observed.
        high: greatest number observed.
    """
    candidates = [start, *scale_candidates(low, high, start.bits, start.signed)]
    coarse = thinned_witness(witness)
    plain = grid_errors(replace(coarse, importance=torch.ones_like(coarse.importance)), candidates)
    errors = torch.where(plain <= _MOST_PLAIN * plain.min(), grid_errors(coarse, candidates), torch.inf)
    return candidates[int(errors.argmin())]


def thinned_witness(witness: Witness) -> Witness:
    """The same tensor at one element in so many."""
    thin = slice(None, None, _COARSE)
    return Witness(witness.places[thin], witness.values[:, thin], witness.importance[:, thin] * _COARSE)
