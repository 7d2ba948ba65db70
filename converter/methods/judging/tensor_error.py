"""Tensors at some of their elements: what their grids cost, judged there and not at the outputs of layers.

So are tensors judged that no layer reads, or others besides layers, or of which a layer's sampled rows show too little. The
error is weighted by the squared gradient of the loss by the tensor, as layers are judged by that of their outputs (Q-HyViT,
arXiv 2303.12557, eq. 6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from converter.quantization.parameters import QuantParams
from converter.sensitivity.context import AnalysisContext
from converter.sensitivity.curvature import or_even, pulled_back
from converter.torch_backend.workers import over_samples

__all__ = ["TensorSample", "grid_errors", "tensor_samples_of", "thinned_sample"]

Tensor = torch.Tensor

_MOST_ELEMENTS = 1 << 12
"""Elements of a tensor at which it is judged, of each sample."""

_PROBES = 2
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
    names = [n for n in names if n not in context.unsteady]
    if context.values is not None or not names:
        return {}
    total = next(iter(feed.values())).shape[0]

    generator = torch.Generator().manual_seed(context.seed)
    places: dict[str, Tensor] = {}

    def run(start: int) -> dict[str, TensorSample]:
        chunk = {name: value[start : start + context.network.chunk] for name, value in feed.items()}
        probes = torch.Generator().manual_seed(context.seed + start)
        squares: dict[str, Tensor] = {}

        def add(name: str, gradient: Tensor) -> None:
            share = _at(gradient, places[name]).square_().div_(_PROBES)
            squares[name] = squares[name].add_(share) if name in squares else share

        values, pulled = pulled_back(context.network, chunk, context.losses, (), names, _PROBES, probes, add)
        if start == 0:
            places.update({name: _places(values[name][0].numel(), generator) for name in names})
        for _ in pulled:
            pass
        return {name: _sampled(values[name].detach(), squares.get(name), total, places[name]) for name in names}

    # the first by itself: it draws the places, which are the same of all samples
    first, chunk = run(0), context.network.chunk
    done = [first, *over_samples(lambda start: run(chunk + start), total - chunk, chunk, context.workers)]
    return {name: _joined([some[name] for some in done]) for name in names}


def _places(count: int, generator: torch.Generator) -> Tensor:
    # a copy: a part of the permutation would keep all of it
    return torch.randperm(count, generator=generator)[:_MOST_ELEMENTS].clone()


def _at(values: Tensor, places: Tensor) -> Tensor:
    return values.reshape(values.shape[0], -1)[:, places]


def _sampled(values: Tensor, squares: Tensor | None, total: int, places: Tensor) -> TensorSample:
    there = _at(values, places)
    share = values[0].numel() / (len(places) * total)
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
    parts = []
    for start in range(0, len(grids), step):
        part = slice(start, start + step)
        rounded = torch.div(x, scale[part]).round_().clamp_(low[part], high[part]).mul_(scale[part])
        parts.append(rounded.sub_(x).square_().mul_(weights).double().sum(1))
    return torch.cat(parts)


def thinned_sample(tensor_sample: TensorSample) -> TensorSample:
    """One number in so many, at other places of each sample: few places may hold all large numbers."""
    values, fisher = (x.reshape(1, -1)[:, ::_COARSE] for x in (tensor_sample.values, tensor_sample.fisher))
    return TensorSample(tensor_sample.places, values, fisher * _COARSE, tensor_sample.blind)
