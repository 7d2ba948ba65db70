"""MSE: the grid with the smallest mean squared rounding and clipping error.

Activations: the observed range is shrunk at either end over a lattice of factors, first coarsely, then around the best,
and each candidate is judged on the kept sample of values. Weights: one factor per output channel.

The error of a candidate is exact, but no value is ever rounded: in the sorted sample, the values that share a code lie
side by side, and with their number, sum and sum of squares known from running totals, their error is a short formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from converter.methods.problem import Problem, choose_by_ranges
from converter.plan.choice import Choice
from converter.quantization.parameters import SMALLEST_SCALE

if TYPE_CHECKING:
    from converter.calibration.observer import TensorStats

__all__ = ["choose", "weight_magnitudes"]

_COARSE = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
_FINE = (-0.075, -0.05, -0.025, 0.0, 0.025, 0.05, 0.075)
_SMALLEST_FACTOR = 0.02
_WEIGHT_FACTORS = np.linspace(0.5, 1.0, 51)
_BLOCK = 1 << 15
"""Weights looked at together: few enough to stay in the cache."""

Doubles = npt.NDArray[np.float64]


def choose(problem: Problem) -> Choice:
    """Plan with ranges of least squared error."""
    return choose_by_ranges(problem, _best_range, weight_magnitudes)


def _best_range(stats: TensorStats, bits: int) -> tuple[float, float]:
    low, high = min(stats.minimum, 0.0), max(stats.maximum, 0.0)
    if high - low < SMALLEST_SCALE:
        return low, high
    sample = _Sorted(stats.sample)
    lows = _COARSE if low < 0 else (1.0,)
    highs = _COARSE if high > 0 else (1.0,)
    candidates = [(a, b) for a in lows for b in highs]
    best = candidates[sample.errors(candidates, low, high, bits).argmin()]

    def near(factor: float, end: float) -> list[float]:
        return [min(1.0, max(_SMALLEST_FACTOR, factor + f)) for f in _FINE] if end else [1.0]

    around = [best, *((a, b) for a in near(best[0], low) for b in near(best[1], high))]
    best = around[sample.errors(around, low, high, bits).argmin()]
    return low * best[0], high * best[1]


class _Sorted:
    """A sample in ascending order, with running totals."""

    def __init__(self, sample: npt.NDArray[np.float32]) -> None:
        self.values = np.sort(sample)
        self.sums = np.concatenate([[0.0], np.cumsum(self.values, dtype=np.float64)])
        self.power = float(np.square(self.values, dtype=np.float64).sum())

    def errors(self, factors: Sequence[tuple[float, float]], low: float, high: float, bits: int) -> Doubles:
        """Summed squared error on the grid over each [low * a, high * b]; float64 [candidates]."""
        steps = 2**bits - 1
        ends = np.asarray(factors) * (low, high)
        scale = np.maximum((ends[:, 1] - ends[:, 0]) / steps, SMALLEST_SCALE).astype(np.float32).astype(np.float64)[:, None]
        zero_point = np.clip(np.rint(-ends[:, :1] / scale), 0, steps)
        constant_gates = scale * (np.arange(steps + 1) - zero_point)
        borders = (scale * (np.arange(steps) + 0.5 - zero_point)).astype(np.float32)
        found = np.searchsorted(self.values, borders.reshape(-1)).reshape(borders.shape)
        first = np.zeros((len(factors), 1), found.dtype)
        edges = np.concatenate([first, found, first + self.values.size], axis=1)
        count, total = np.diff(edges, axis=1), np.diff(self.sums[edges], axis=1)
        return np.asarray(self.power + (constant_gates * (constant_gates * count - 2.0 * total)).sum(axis=1))


def weight_magnitudes(rows: npt.NDArray[np.float32], bits: int) -> Doubles:
    """The magnitude that minimises each row's squared error, 0.5 to 1.0 times its largest; float64 [channels]."""
    largest = np.abs(rows).max(axis=1, initial=0.0).astype(np.float64)
    top = 2 ** (bits - 1) - 1
    steps = rows * (top / np.maximum(largest, top * SMALLEST_SCALE))[:, None].astype(np.float32)
    height = max(1, _BLOCK // max(1, rows.shape[1]))
    best = [_best_factors(steps[start : start + height], top) for start in range(0, len(steps), height)]
    return np.asarray(largest * np.concatenate([np.zeros(0), *best]))


def _best_factors(steps: npt.NDArray[np.float32], top: int) -> Doubles:
    """The best factor of each row, whose largest magnitude is ``top``; of equal ones the largest; float64 [rows]."""
    errors = np.empty((_WEIGHT_FACTORS.size, len(steps)))
    shrunk, error = np.empty_like(steps), np.empty_like(steps)
    for i, factor in enumerate(_WEIGHT_FACTORS):
        np.multiply(steps, np.float32(1.0 / factor), out=shrunk)
        np.rint(shrunk, out=error)
        np.clip(error, -top, top, out=error)
        np.subtract(error, shrunk, out=error)
        np.square(error, out=error)
        np.add.reduce(error, axis=1, dtype=np.float64, out=errors[i])
        errors[i] *= factor * factor
    return np.asarray(_WEIGHT_FACTORS[(_WEIGHT_FACTORS.size - 1) - errors[::-1].argmin(axis=0)])
