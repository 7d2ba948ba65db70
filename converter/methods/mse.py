"""MSE: the grid with the smallest mean squared rounding and clipping error.

Activations: the observed range is shrunk at either end over a lattice of factors, first coarsely, then around the best,
and each candidate is judged on the kept sample of values, the observed extremes among them. Weights: one factor per output channel.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from converter.grids import SMALLEST_SCALE, affine_grid, fake_quantize
from converter.methods.problem import Choice, Problem, choose_by_ranges
from converter.observe import TensorStats

__all__ = ["choose", "weight_magnitudes"]

_COARSE = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
_FINE = (-0.075, -0.05, -0.025, 0.0, 0.025, 0.05, 0.075)
_WEIGHT_FACTORS = np.linspace(0.5, 1.0, 51)
_VALUES_JUDGED = 8192


def choose(problem: Problem) -> Choice:
    """Plan with ranges of least squared error."""
    return choose_by_ranges(problem, _best_range, weight_magnitudes)


def _best_range(stats: TensorStats, bits: int) -> tuple[float, float]:
    low, high = min(stats.minimum, 0.0), max(stats.maximum, 0.0)
    if high - low < SMALLEST_SCALE:
        return low, high
    step = max(1, stats.sample.size // _VALUES_JUDGED)
    values = stats.sample[::step].astype(np.float32)

    def error(factors: tuple[float, float]) -> float:
        grid = affine_grid(low * factors[0], high * factors[1], bits=bits, signed=True)
        return float(np.square(fake_quantize(values, grid) - values, dtype=np.float64).sum())

    lows = _COARSE if low < 0 else (1.0,)
    highs = _COARSE if high > 0 else (1.0,)
    best = min(((a, b) for a in lows for b in highs), key=error)
    around = [
        (min(1.0, max(0.02, best[0] + a)) if low < 0 else 1.0, min(1.0, max(0.02, best[1] + b)) if high > 0 else 1.0)
        for a in _FINE
        for b in _FINE
    ]
    best = min([best, *around], key=error)
    return low * best[0], high * best[1]


def weight_magnitudes(rows: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.float64]:
    """The magnitude that minimises each row's squared error, 0.5 to 1.0 times its largest; float64 [channels]."""
    largest = np.abs(rows).max(axis=1, initial=0.0).astype(np.float64)
    top = 2 ** (bits - 1) - 1
    errors = np.empty((_WEIGHT_FACTORS.size, rows.shape[0]))
    for i, factor in enumerate(_WEIGHT_FACTORS):
        scale = np.maximum(largest * factor / top, SMALLEST_SCALE)[:, None].astype(np.float32)
        rounded = np.clip(np.rint(rows / scale), -top, top) * scale
        errors[i] = np.square(rounded - rows, dtype=np.float64).sum(axis=1)
    best = (_WEIGHT_FACTORS.size - 1) - errors[::-1].argmin(axis=0)
    return largest * _WEIGHT_FACTORS[best]
