"""Search scales and schemes layer by layer: activations and weights in turn, each given the other.

The candidates are those of Q-HyViT (arXiv 2303.12557, section 3.3). A zero point that would lie outside the container is
clamped, and the candidate is judged so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from converter.methods.judging.layer_readers import Reader
from converter.methods.judging.output_error import LayerReconstruction, activation_errors, on_grid, thinned, weight_errors
from converter.methods.judging.range_candidates import scale_candidates, shortlist, with_moved_ends
from converter.methods.judging.tensor_error import TensorSample, grid_errors, thinned_sample
from converter.quantization.parameters import SMALLEST_SCALE, QuantParams

__all__ = ["best_weights", "quantized_operand", "ranked_activations", "ranked_again"]

Tensor = torch.Tensor
Doubles = npt.NDArray[np.float64]

_WEIGHT_FACTORS = np.linspace(0.4, 1.0, 31)
_COARSE_ROWS = 256
_COARSE_NUMBERS = 1 << 19
_FEWEST_COARSE_ROWS = 32
_MOST_WORSE = 3.0
"""A grid may leave so many times the weighted error of the one that leaves the least without weights."""


def ranked_activations(
    readers: Sequence[Reader],
    reconstructions: Mapping[str, LayerReconstruction],
    others: Mapping[tuple[str, int], Tensor],
    start: QuantParams,
    low: float,
    high: float,
    *,
    asymmetric: bool = True,
    tensor_sample: TensorSample | None = None,
    guard: TensorSample | None = None,
) -> list[QuantParams]:
    """The best grids for a tensor by the error of all layers that read it, best first.

    Args:
        readers: all layers that read it.
        reconstructions: of the layers.
        others: the layers' other operands as they will be, by (layer, operand).
        start: a grid that is judged too, unless only symmetric ones are wanted.
        low: least number observed.
        high: greatest number observed.
        asymmetric: False leaves the symmetric scheme alone.
        tensor_sample: of the tensor, if others than layers read it too.
        guard: the tensor at more places than the layers show, for grids that are far worse there to be kept out.
    """
    candidates = scale_candidates(low, high, start.bits, start.signed, asymmetric=asymmetric)
    if not asymmetric:
        kept = shortlist(candidates, _errors(readers, reconstructions, others, candidates, tensor_sample))
        return ranked_again(readers, reconstructions, others, kept, tensor_sample)
    candidates = _sparing([start, *candidates], None if guard is None else thinned_sample(guard))
    steps = {r.name: _coarse_step(reconstructions[r.name].left.shape) for r in readers}
    coarse = {name: thinned(reconstructions[name], step) for name, step in steps.items()}
    thin = {(r.name, 1 - r.operand): others[r.name, 1 - r.operand][:, :: steps[r.name] if r.operand else 1] for r in readers}
    kept = shortlist(
        candidates, _errors(readers, coarse, thin, candidates, None if tensor_sample is None else thinned_sample(tensor_sample))
    )
    finalists = _sparing(list(dict.fromkeys([start, *kept, *with_moved_ends(kept[0])])), guard)
    return ranked_again(readers, reconstructions, others, finalists, tensor_sample)


def _sparing(grids: list[QuantParams], guard: TensorSample | None) -> list[QuantParams]:
    """The grids that are not far worse than the first at the tensor itself.

    A layer is judged at few places, and numbers that are rare there and large may all be elsewhere.
    """
    if guard is None:
        return grids
    errors = grid_errors(guard, grids)
    return [grid for grid, error in zip(grids, errors.tolist(), strict=True) if error <= _MOST_WORSE * float(errors[0])]


def _coarse_step(shape: Sequence[int]) -> int:
    groups, rows, inputs = shape
    return max(1, rows // max(_FEWEST_COARSE_ROWS, min(_COARSE_ROWS, _COARSE_NUMBERS // (groups * inputs))))


def ranked_again(
    readers: Sequence[Reader],
    reconstructions: Mapping[str, LayerReconstruction],
    others: Mapping[tuple[str, int], Tensor],
    grids: Sequence[QuantParams],
    tensor_sample: TensorSample | None = None,
) -> list[QuantParams]:
    """The best of a few grids anew, after the layers' other operands have changed."""
    return shortlist(grids, _errors(readers, reconstructions, others, grids, tensor_sample))


def _errors(
    readers: Sequence[Reader],
    reconstructions: Mapping[str, LayerReconstruction],
    others: Mapping[tuple[str, int], Tensor],
    grids: Sequence[QuantParams],
    tensor_sample: TensorSample | None,
) -> Tensor:
    total = torch.zeros(len(grids), dtype=torch.float64) if tensor_sample is None else grid_errors(tensor_sample, grids)
    for reader in readers:
        other = others[reader.name, 1 - reader.operand]
        total += activation_errors(reconstructions[reader.name], reader.operand, other, grids, reader.quantized_edge.factor)
    return total


def best_weights(reconstruction: LayerReconstruction, left: Tensor, bits: int, factors: Doubles = _WEIGHT_FACTORS) -> tuple[Tensor, Tensor]:
    """The best symmetric scale of each output channel.

    Args:
        reconstruction: the layer.
        left: its rows on their grid.
        bits: of the weights.
        factors: of the scale that just covers them, to be tried; of equals the greatest wins. float64 [factors], rising.

    Returns:
        scales, float32 [G, M]; weights on their grids, float32 [G, K, M].
    """
    top = 2 ** (bits - 1) - 1
    largest = reconstruction.right.abs().amax(1, keepdim=True).clamp(min=top * SMALLEST_SCALE) / top

    def rounded(scale: Tensor) -> Tensor:
        return torch.div(reconstruction.right, scale).round_().clamp_(-top, top).mul_(scale)

    best: tuple[Tensor, Tensor] | None = None
    for factor in factors[::-1]:
        scale = largest * float(factor)
        error = weight_errors(reconstruction, left, rounded(scale))[:, None]
        if best is None:
            best = error, scale
            continue
        better = error < best[0]
        best = torch.where(better, error, best[0]), torch.where(better, scale, best[1])
    assert best is not None
    return best[1][:, 0], rounded(best[1])


def quantized_operand(reconstruction: LayerReconstruction, operand: int, grid: QuantParams | None, factor: float) -> Tensor:
    """An operand as the layer will read it."""
    x = reconstruction.right if operand else reconstruction.left
    return x if grid is None else on_grid(x, grid, factor)
