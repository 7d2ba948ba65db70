"""Tensors at some of their elements: what their grids cost, judged there and not at the outputs of layers.

So are tensors judged that no layer reads, or others besides layers, or of which a layer's sampled rows show too little. The
error is weighted by the squared gradient of the loss by the tensor, as layers are judged by that of their outputs (Q-HyViT,
arXiv 2303.12557, eq. 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from converter.methods.judging.output_error import on_each
from converter.quantization.parameters import QuantParams
from converter.sensitivity.context import AnalysisContext
from converter.sensitivity.curvature import or_even
from converter.sensitivity.pull_back import Takers, Wish, gathered, mean_squares

__all__ = ["PROBES", "TensorSample", "grid_errors", "tensor_samples_of", "tensors_wish", "thinned_sample"]

Tensor = torch.Tensor

_MOST_ELEMENTS = 1 << 12
"""Elements of a tensor at which it is judged, of each sample."""

PROBES = 2
"""Random vectors pulled back."""

_COARSE = 11
"""A prime number that divides the number of elements of hardly any tensor."""

_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class TensorSample:
    """A tensor at some of its elements.

    Attributes:
        places: which elements, int64 [E].
        values: float32 [samples, E].
        fisher: float32 [samples, E], scaled so that sums stand for all elements of one sample.
        blind: the importance is even, as no gradient came here.
    """

    places: Tensor
    values: Tensor
    fisher: Tensor
    blind: bool = False


def tensor_samples_of(context: AnalysisContext, names: Sequence[str], feed: Mapping[str, Tensor]) -> dict[str, TensorSample]:
    """Run the float network forwards and backwards and keep some elements of some tensors.

    Args:
        context: with a network that can be differentiated; for another there are no samples of tensors.
        names: of the tensors.
        feed: samples by input name, the sample axis in front.
    """
    wish, result = tensors_wish(context, names, next(iter(feed.values())).shape[0])
    if not wish.points:
        return {}
    (parts,) = gathered(context.network, feed, context.losses, [wish], probes=PROBES, seed=context.seed, workers=context.workers)
    return result(parts)


def tensors_wish(
    context: AnalysisContext, names: Sequence[str], samples: int
) -> tuple[Wish, Callable[[list[dict[str, TensorSample]]], dict[str, TensorSample]]]:
    """What is wanted of the runs over :data:`PROBES` probes for that, and what makes it of the results; without points if it is nothing.

    Args:
        context: as there.
        names: of the tensors.
        samples: how many there are, or the first ones of more.
    """
    names = [] if context.values is not None else [n for n in names if n not in context.unsteady]
    generator = torch.Generator().manual_seed(context.seed)
    places: dict[str, Tensor] = {}

    def begin(start: int, values: Mapping[str, Tensor]) -> tuple[Takers, Callable[[], dict[str, TensorSample]]]:
        if start == 0:  # the first samples run by themselves, and draw the places of all
            places.update({name: _places(values[name][0].numel(), generator) for name in names})
        counts = {name: values[name][0].numel() for name in names}
        there = {name: _at(values[name], places[name]) for name in names}
        takers, squares = mean_squares({name: partial(_at, places=places[name]) for name in names}, PROBES)
        return takers, lambda: {name: _sampled(there[name], squares.get(name), counts[name], samples, places[name]) for name in names}

    def result(parts: list[dict[str, TensorSample]]) -> dict[str, TensorSample]:
        return {name: _joined([part.pop(name) for part in parts]) for name in names}

    return Wish((), tuple(dict.fromkeys(names)), samples, begin), result


def _places(count: int, generator: torch.Generator) -> Tensor:
    # a copy: a part of the permutation would keep all of it
    return torch.randperm(count, generator=generator)[:_MOST_ELEMENTS].clone()


def _at(values: Tensor, places: Tensor) -> Tensor:
    return values.reshape(values.shape[0], -1)[:, places]


def _sampled(there: Tensor, squares: Tensor | None, count: int, total: int, places: Tensor) -> TensorSample:
    share = count / (len(places) * total)
    return TensorSample(places, there, torch.zeros_like(there) if squares is None else squares * share)


def _joined(parts: Sequence[TensorSample]) -> TensorSample:
    values = torch.cat([p.values for p in parts])
    return TensorSample(parts[0].places, values, *or_even(torch.cat([p.fisher for p in parts]), lambda: values))


def grid_errors(tensor_sample: TensorSample, grids: Sequence[QuantParams]) -> Tensor:
    """Weighted error of a tensor on each of many per-tensor grids of one width and container; float64 [candidates]."""
    x, weights = tensor_sample.values.reshape(-1), tensor_sample.fisher.reshape(-1)
    scale = torch.tensor([g.scale[0] for g in grids])[:, None]
    zero = torch.tensor([float(g.zero_point[0]) for g in grids])[:, None]
    low, high = grids[0].qmin - zero, grids[0].qmax - zero
    step = max(1, _AT_ONCE // x.numel())
    errors = torch.empty(len(grids), dtype=torch.float64)
    for start in range(0, len(grids), step):
        part = slice(start, start + step)
        rounded = on_each(x, scale[part], low[part], high[part])
        errors[part] = rounded.sub_(x).square_().mul_(weights).double().sum(1)
    return errors


def thinned_sample(tensor_sample: TensorSample) -> TensorSample:
    """One number in so many, at other places of each sample: few places may hold all large numbers."""
    values, fisher = (x.reshape(1, -1)[:, ::_COARSE] for x in (tensor_sample.values, tensor_sample.fisher))
    return TensorSample(tensor_sample.places, values, fisher * _COARSE, tensor_sample.blind)
