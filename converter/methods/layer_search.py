"""Search scales and schemes layer by layer: activations and weights in turn, each given the other.

Candidates follow Q-HyViT (arXiv 2303.12557, section 3.3): a hundred scales between 0.01 and 1.2 times the one that
covers the observed range, for a symmetric and an asymmetric zero point. Around the best of them either end of the
range is moved by itself. A zero point that would lie outside the container is clamped, and the candidate is judged so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from converter.grids import SMALLEST_SCALE, Grid
from converter.methods.layer_error import Judge, activation_errors, on_grid, thinned, weight_errors
from converter.methods.layer_readers import Reader

__all__ = ["best_activation", "best_weights", "covering", "ranked_activations", "ranked_again", "scale_candidates"]

Tensor = torch.Tensor

_FACTORS = np.linspace(0.01, 1.2, 100)
_ENDS = (0.7, 0.8, 0.9, 1.0, 1.1)
_WEIGHT_FACTORS = np.linspace(0.4, 1.0, 31)
_COARSE_ROWS = 256
_COARSE_NUMBERS = 1 << 19
_FEWEST_COARSE_ROWS = 32
_SHORTLIST = 8


def covering(low: float, high: float, bits: int, signed: bool) -> Grid:
    """The asymmetric grid over a range and zero, its zero point clamped to the container."""
    low, high = min(low, 0.0), max(high, 0.0)
    bottom = -(2 ** (bits - 1)) if signed else 0
    scale = float(np.float32(max((high - low) / (2**bits - 1), SMALLEST_SCALE)))
    zero = int(np.clip(np.rint(bottom - low / scale), bottom, bottom + 2**bits - 1))
    return Grid((scale,), (zero,), bits, signed)


def scale_candidates(low: float, high: float, bits: int, signed: bool, *, asymmetric: bool = True) -> list[Grid]:
    """All scales over an observed range, of both schemes or of the symmetric one alone."""
    whole = covering(low, high, bits, signed)
    grids = [replace(whole, scale=(_safe(whole.scale[0] * f),)) for f in _FACTORS] if asymmetric else []
    if low < 0.0 < high or not asymmetric:
        half = max(-low, high) / (2 ** (bits - 1) - 1)
        middle = 0 if signed else 2 ** (bits - 1)
        grids += [Grid((_safe(half * f),), (middle,), bits, signed) for f in _FACTORS]
    return grids


def _safe(scale: float) -> float:
    return float(np.float32(max(scale, SMALLEST_SCALE)))


def ranked_activations(
    readers: Sequence[Reader],
    judges: Mapping[str, Judge],
    others: Mapping[tuple[str, int], Tensor],
    start: Grid,
    low: float,
    high: float,
    *,
    asymmetric: bool = True,
) -> list[Grid]:
    """The best grids for a tensor by the error of all layers that read it, best first.

    Args:
        readers: all layers that read it.
        judges: of the layers.
        others: the layers' other operands as they will be, by (layer, operand).
        start: a grid that is judged too, unless only symmetric ones are wanted.
        low: least number observed.
        high: greatest number observed.
        asymmetric: False leaves the symmetric scheme alone.
    """
    candidates = scale_candidates(low, high, start.bits, start.signed, asymmetric=asymmetric)
    if not asymmetric:
        return ranked_again(readers, judges, others, _best(candidates, _errors(readers, judges, others, candidates), _SHORTLIST))
    candidates = [start, *candidates]
    steps = {r.name: _coarse_step(judges[r.name].left.shape) for r in readers}
    coarse = {name: thinned(judges[name], step) for name, step in steps.items()}
    thin = {(r.name, 1 - r.operand): others[r.name, 1 - r.operand][:, :: steps[r.name] if r.operand else 1] for r in readers}
    kept = _best(candidates, _errors(readers, coarse, thin, candidates), _SHORTLIST)
    first = kept[0]
    ends = [covering(first.lowest * a, first.highest * b, first.bits, first.signed) for a in _ENDS for b in _ENDS]
    finalists = list(dict.fromkeys([start, *kept, *ends]))
    return ranked_again(readers, judges, others, finalists)


def _coarse_step(shape: Sequence[int]) -> int:
    groups, rows, inputs = shape
    return max(1, rows // max(_FEWEST_COARSE_ROWS, min(_COARSE_ROWS, _COARSE_NUMBERS // (groups * inputs))))


def ranked_again(
    readers: Sequence[Reader], judges: Mapping[str, Judge], others: Mapping[tuple[str, int], Tensor], grids: Sequence[Grid]
) -> list[Grid]:
    """The best of a few grids anew, after the layers' other operands have changed."""
    return _best(grids, _errors(readers, judges, others, grids), _SHORTLIST)


def best_activation(
    readers: Sequence[Reader], judges: Mapping[str, Judge], others: Mapping[tuple[str, int], Tensor], start: Grid, low: float, high: float
) -> Grid:
    """The grid of least error for a tensor."""
    return ranked_activations(readers, judges, others, start, low, high)[0]


def _errors(
    readers: Sequence[Reader], judges: Mapping[str, Judge], others: Mapping[tuple[str, int], Tensor], grids: Sequence[Grid]
) -> Tensor:
    total = torch.zeros(len(grids), dtype=torch.float64)
    for reader in readers:
        other = others[reader.name, 1 - reader.operand]
        total += activation_errors(judges[reader.name], reader.operand, other, grids, reader.reading.factor)
    return total


def _best(grids: Sequence[Grid], errors: Tensor, count: int) -> list[Grid]:
    order = torch.argsort(errors, stable=True)[:count]
    return [grids[int(i)] for i in order]


def best_weights(judge: Judge, left: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The best symmetric scale of each output channel.

    Args:
        judge: the layer.
        left: its rows on their grid.
        bits: of the weights.

    Returns:
        scales, float32 [G, M]; weights on their grids, float32 [G, K, M].
    """
    top = 2 ** (bits - 1) - 1
    largest = judge.right.abs().amax(1, keepdim=True).clamp(min=top * SMALLEST_SCALE) / top
    best: tuple[Tensor, Tensor, Tensor] | None = None
    for factor in _WEIGHT_FACTORS[::-1]:
        scale = largest * float(factor)
        rounded = torch.clamp(torch.round(judge.right / scale), -top, top) * scale
        error = weight_errors(judge, left, rounded)[:, None]
        if best is None:
            best = error, scale, rounded
            continue
        better = error < best[0]
        best = tuple(torch.where(better, new, old) for new, old in zip((error, scale, rounded), best, strict=True))  # type: ignore[assignment]
    assert best is not None
    return best[1][:, 0], best[2]


def quantized_operand(judge: Judge, operand: int, grid: Grid | None, factor: float) -> Tensor:
    """An operand as the layer will read it."""
    x = judge.right if operand else judge.left
    return x if grid is None else on_grid(x, grid, factor)
