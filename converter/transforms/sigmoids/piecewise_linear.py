"""Piecewise-linear sigmoids: a clamped straight line in the place of a sigmoid that gates what it reads, as in SiLU.

The integer sigmoid is a table that is read code by code. A line needs no table: its codes are those of its input, clamped,
under another scale and zero point. Around zero a sigmoid is nearly straight, and far from it nearly constant; what is left in
between is some 3 % of SiLU's output, so that lines are taken only where the network's answer hardly changes. Inputs that all
are close to zero see hardly more than one number, and for them the line can be level. Pure numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.quantization.parameters import FloatArray, QuantParams

__all__ = [
    "PiecewiseLinear",
    "PricedApproximation",
    "SigmoidSite",
    "approximation",
    "approximation_params",
    "clip_limits",
    "fit_constant_gate",
    "fit_piecewise_linear",
    "gating_error",
]

_START = (0.2, 0.5, 0.05, 0.97)
_LOWEST, _HIGHEST = np.asarray((0.1, 0.3, 0.0, 0.6)), np.asarray((0.4, 0.7, 0.3, 1.0))
"""Within which a piecewise-linear sigmoid's four numbers are fitted."""

_ROUNDS = 9
_FITTED = 4096


@dataclass(frozen=True)
class PiecewiseLinear:
    """min(max(slope * x + offset, low), high); level if the slope is zero, and then the other three are the same."""

    slope: float
    offset: float
    low: float
    high: float

    @property
    def is_constant(self) -> bool:
        """True if it is one number for every x."""
        return self.slope == 0.0


@dataclass(frozen=True)
class PricedApproximation:
    """A piecewise-linear sigmoid and what it changes.

    Attributes:
        shape: the piecewise-linear sigmoid.
        change: of the loss, by this piecewise-linear sigmoid alone.
    """

    shape: PiecewiseLinear
    change: float


@dataclass(frozen=True)
class SigmoidSite:
    """Where a piecewise-linear sigmoid may stand.

    Attributes:
        read: the tensor that the sigmoid reads, and with which its result is multiplied.
        saved: what a line that is not level costs less, in the target's unit.
        saved_constant_gate: what a level one costs less: the sigmoid and the product.
    """

    read: str
    saved: float
    saved_constant_gate: float


def approximation(x: FloatArray, shape: PiecewiseLinear) -> FloatArray:
    """The function itself; same shape as x."""
    result: FloatArray = np.clip(shape.slope * x + shape.offset, shape.low, shape.high)
    return result


def fit_piecewise_linear(x: FloatArray) -> PiecewiseLinear:
    """The line with which x * line(x) is close to x * sigmoid(x) on a sample, by descent along one number after the other.

    Args:
        x: sample of the input, any shape.
    """
    values = x.reshape(-1)[:_FITTED].astype(np.float64)
    wanted = values * _sigmoid(values)

    def error(numbers: FloatArray) -> float:
        return float(np.square(values * approximation(values, PiecewiseLinear(*numbers)) - wanted).mean()) if values.size else 0.0

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
    return PiecewiseLinear(*(float(np.float32(b)) for b in best))


_WITHIN = (np.finfo(np.float32).tiny, np.nextafter(np.float32(1.0), np.float32(0.0)))
"""What a constant gate can be: more than zero and less than one."""


def fit_constant_gate(x: FloatArray) -> PiecewiseLinear:
    """The constant with which x * line(x) is closest to x * sigmoid(x) on a sample: the mean of sigmoid(x), weighted by x * x.

    Args:
        x: sample of the input, any shape; 0.5 if it is empty or zero.
    """
    values = x.reshape(-1)[:_FITTED].astype(np.float64)
    power = np.square(values)
    height = (power * _sigmoid(values)).sum() / power.sum() if power.any() else 0.5
    height = float(np.float32(height).clip(*_WITHIN))  # a sigmoid that never leaves its end
    return PiecewiseLinear(0.0, height, height, height)


def gating_error(x: FloatArray, shape: PiecewiseLinear) -> float:
    """Squared error of x * line(x) over the power of x * sigmoid(x), on a sample of any shape; 0 where that has no power."""
    values = x.reshape(-1)[:_FITTED].astype(np.float64)
    wanted = values * _sigmoid(values)
    power = np.square(wanted).sum()
    return float(np.square(values * approximation(values, shape) - wanted).sum() / power) if power else 0.0


def _sigmoid(x: FloatArray) -> FloatArray:
    result: FloatArray = 1.0 / (1.0 + np.exp(-np.clip(x, -80.0, 80.0)))
    return result


def approximation_params(grid: QuantParams, shape: PiecewiseLinear) -> QuantParams | None:
    """The grid on which the input's codes, clamped, are the piecewise-linear sigmoid; None where its zero point is no code.

    Args:
        grid: of the input, per tensor.
        shape: the piecewise-linear sigmoid, inclined. Its offset is rounded to a whole number of steps.
    """
    scale = float(np.float32(np.float32(grid.scale[0]) * np.float32(shape.slope)))
    zero_point = grid.zero_point[0] - round(shape.offset / scale)
    container = np.iinfo(grid.dtype)
    return QuantParams((scale,), (zero_point,), 8, grid.signed) if container.min <= zero_point <= container.max else None


def clip_limits(grid: QuantParams, shape: PiecewiseLinear) -> tuple[int, int]:
    """Lowest and highest code of a piecewise-linear sigmoid on its own grid."""
    low, high = (round(end / grid.scale[0]) + grid.zero_point[0] for end in (shape.low, shape.high))
    return min(max(low, grid.qmin), grid.qmax), max(min(high, grid.qmax), grid.qmin)
