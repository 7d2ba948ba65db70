"""Ramps: a clamped straight line in the place of a sigmoid that gates what it reads, as in SiLU.

The integer sigmoid is a table that is read code by code. A ramp needs no table: its codes are those of its input, clamped,
under another scale and zero point. Around zero a sigmoid is nearly straight, and far from it nearly constant; what is left in
between is some 3 % of SiLU's output, so that ramps are taken only where the network's answer hardly changes. Pure numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.grids import FloatArray, Grid

__all__ = ["Ramp", "RampSite", "fit_ramp", "ramp", "ramp_grid", "ramp_limits"]

_START = (0.2, 0.5, 0.05, 0.97)
_LOWEST, _HIGHEST = np.asarray((0.1, 0.3, 0.0, 0.6)), np.asarray((0.4, 0.7, 0.3, 1.0))
"""Within which a ramp's four numbers are fitted."""

_ROUNDS = 9
_FITTED = 4096


@dataclass(frozen=True)
class Ramp:
    """min(max(slope * x + offset, low), high)."""

    slope: float
    offset: float
    low: float
    high: float


@dataclass(frozen=True)
class RampSite:
    """Where a ramp may stand.

    Attributes:
        read: the tensor that the sigmoid reads, and with which its result is multiplied.
        saved: what the ramp costs less, in the target's unit.
    """

    read: str
    saved: float


def ramp(x: FloatArray, shape: Ramp) -> FloatArray:
    """The function itself; same shape as x."""
    result: FloatArray = np.clip(shape.slope * x + shape.offset, shape.low, shape.high)
    return result


def fit_ramp(x: FloatArray) -> Ramp:
    """The ramp with which x * ramp(x) is close to x * sigmoid(x) on a sample, by descent along one number after the other.

    Args:
        x: sample of the input, any shape.
    """
    values = x.reshape(-1)[:_FITTED].astype(np.float64)
    wanted = values / (1.0 + np.exp(-np.clip(values, -80.0, 80.0)))

    def error(numbers: FloatArray) -> float:
        return float(np.square(values * ramp(values, Ramp(*numbers)) - wanted).mean()) if values.size else 0.0

    best = np.asarray(_START)
    least = error(best)
    for number in range(_ROUNDS):
        for index, width in enumerate(_HIGHEST - _LOWEST):
            for step in np.linspace(-0.5, 0.5, 9) * width * 0.6**number:
                tried = best.copy()
                tried[index] = np.clip(best[index] + step, _LOWEST[index], _HIGHEST[index])
                found = error(tried)
                if found < least:
                    best, least = tried, found
    return Ramp(*(float(np.float32(b)) for b in best))


def ramp_grid(grid: Grid, shape: Ramp) -> Grid | None:
    """The grid on which the input's codes, clamped, are the ramp; None where its zero point is no code.

    Args:
        grid: of the input, per tensor.
        shape: the ramp. Its offset is rounded to a whole number of steps.
    """
    scale = float(np.float32(np.float32(grid.scale[0]) * np.float32(shape.slope)))
    zero_point = grid.zero_point[0] - round(shape.offset / scale)
    container = np.iinfo(grid.dtype)
    return Grid((scale,), (zero_point,), 8, grid.signed) if container.min <= zero_point <= container.max else None


def ramp_limits(grid: Grid, shape: Ramp) -> tuple[int, int]:
    """Lowest and highest code of a ramp on its own grid."""
    low, high = (round(end / grid.scale[0]) + grid.zero_point[0] for end in (shape.low, shape.high))
    return min(max(low, grid.qmin), grid.qmax), max(min(high, grid.qmax), grid.qmin)
