"""Judge grids by the weighted error of a layer's output, many candidates in one matrix product.

The error of a candidate is sum(g^2 (O - O_q)^2) over sampled output places, with the squared gradients g^2 of the loss
(Q-HyViT, arXiv 2303.12557, eq. 6; the diagonal as in PTQ4ViT, arXiv 2111.12293, section 3.3).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from converter.quantization.parameters import QuantParams
from converter.sensitivity.context import QuantizedEdge
from converter.sensitivity.layer_samples import LayerSample
from converter.torch_backend.network import Hook, Step

__all__ = [
    "LayerReconstruction",
    "activation_errors",
    "on_each",
    "on_grid",
    "on_grids",
    "reconstruction_of",
    "thinned",
    "weight_errors",
]

Tensor = torch.Tensor

_AT_ONCE = 1 << 18
"""Numbers in one product of all candidates: more would leave the cache for nothing."""

_MOST_PRODUCTS = 1 << 27
"""Multiplications of one run of a layer, unless that left too few rows."""

_MOST_NUMBERS = 1 << 22
"""Numbers in the rows of a layer, unless that left too few rows."""

_FEWEST_ROWS = 128


@dataclass(frozen=True)
class LayerReconstruction:
    """A sampled layer and what it should give.

    Attributes:
        left: float32 [G, S, K].
        right: float32 [G, K, M].
        target: float32 [G, S, M], the float product.
        fisher: float32 [G, S, M], scaled so that sums stand for all places and not only the sampled ones.
    """

    left: Tensor
    right: Tensor
    target: Tensor
    fisher: Tensor


def reconstruction_of(sample: LayerSample) -> LayerReconstruction:
    """Prepare a layer; a very wide one is judged at fewer places."""
    share = sample.positions / max(1, sample.left.shape[1] * (1 if sample.weighted else sample.left.shape[0]))
    reconstruction = LayerReconstruction(sample.left, sample.right, sample.left @ sample.right, sample.fisher * share)
    numbers = sample.left.shape[0] * sample.left.shape[2]
    rows = max(_FEWEST_ROWS, min(_MOST_PRODUCTS // sample.right.numel(), _MOST_NUMBERS // numbers))
    return thinned(reconstruction, max(1, sample.left.shape[1] // rows)) if sample.weighted else reconstruction


def thinned(reconstruction: LayerReconstruction, step: int) -> LayerReconstruction:
    """The same layer at every ``step``-th place."""
    return LayerReconstruction(
        reconstruction.left[:, ::step], reconstruction.right, reconstruction.target[:, ::step], reconstruction.fisher[:, ::step] * step
    )


def on_grid(x: Tensor, grid: QuantParams, factor: float = 1.0) -> Tensor:
    """The nearest numbers on a per-tensor grid times a factor."""
    scale, zero = grid.scale[0] * factor, grid.zero_point[0]
    return torch.clamp(torch.div(x, scale).round_(), grid.qmin - zero, grid.qmax - zero).mul_(scale)  # few copies: tensors may be large


def on_each(x: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The nearest numbers on each of many grids; the scales and the lowest and highest codes have a shape that broadcasts with x."""
    # a clamp between two tensors takes twice as long as one after the other
    return torch.div(x, scale).round_().clamp_min_(low).clamp_max_(high).mul_(scale)


def on_grids(
    quantized_edges: Mapping[tuple[str, int], QuantizedEdge], grids: Mapping[str, QuantParams], steps: Collection[str] | None = None
) -> Hook:
    """Puts some tensors on their grids wherever they are read through them, or only where some steps do; all else stays float.

    Args:
        quantized_edges: by (step, operand).
        grids: by owner.
        steps: that read so; all if None.
    """

    def hook(step: Step, index: int, value: Tensor) -> Tensor:
        quantized_edge = quantized_edges.get((step.name, index))
        if quantized_edge is None or quantized_edge.owner not in grids or (steps is not None and step.name not in steps):
            return value
        return on_grid(value, grids[quantized_edge.owner], quantized_edge.factor)

    return hook


def activation_errors(
    reconstruction: LayerReconstruction, operand: int, other: Tensor, grids: Sequence[QuantParams], factor: float = 1.0
) -> Tensor:
    """Errors of a layer with each of many per-tensor grids on one operand; float64 [candidates].

    Args:
        reconstruction: the layer.
        operand: 0 for the rows, 1 for the second operand of a product.
        other: the other operand as it will be, on its grid.
        grids: candidates, all of one width and container.
        factor: of the numbers of the grid at this edge.
    """
    x = reconstruction.right if operand else reconstruction.left
    scale = torch.tensor([g.scale[0] * factor for g in grids]).reshape(-1, 1, 1, 1)
    zero = torch.tensor([float(g.zero_point[0]) for g in grids]).reshape(-1, 1, 1, 1)
    low, high = grids[0].qmin - zero, grids[0].qmax - zero
    step = max(1, _AT_ONCE // max(x.numel(), reconstruction.target.numel()))
    errors = torch.empty(len(grids), dtype=torch.float64)  # results of their own would stand in the gaps that large tensors leave
    for start in range(0, len(grids), step):
        part = slice(start, start + step)
        rounded = on_each(x, scale[part], low[part], high[part])
        got = other @ rounded if operand else rounded @ other
        errors[part] = (got.sub_(reconstruction.target).square_().mul_(reconstruction.fisher)).sum(3).double().sum((1, 2))
        del rounded, got
    return errors


def weight_errors(reconstruction: LayerReconstruction, left: Tensor, right: Tensor) -> Tensor:
    """Error of each output channel with other weights; float64 [G, M].

    Args:
        reconstruction: the layer.
        left: the rows as they will be, float32 [G, S, K].
        right: the weights to judge, float32 [G, K, M].
    """
    return ((left @ right).sub_(reconstruction.target).square_().mul_(reconstruction.fisher)).sum(1).double()
