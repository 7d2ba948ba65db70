"""Uniform integer grids: how real numbers become k-bit integers and back. Pure NumPy.

A grid maps a real x to the integer clip(round(x / scale) + zero_point, qmin, qmax), rounding half to even as
QuantizeLinear does, and back to scale * (q - zero_point) (ONNX operator specification, QuantizeLinear-19). A grid of
fewer than 8 bits lives in an 8-bit container and uses only part of its range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["SMALLEST_SCALE", "FloatArray", "QuantParams", "affine_params", "dequantize", "fake_quantize", "quantize", "symmetric_params"]

FloatArray = npt.NDArray[np.floating[Any]]

SMALLEST_SCALE = 2.0**-40
"""No scale that is chosen here is smaller; the product of two is far from the smallest normal float32 number."""

_SMALLEST_ALLOWED = 2.0**-60
"""Down to here a grid may be rescaled: the product of two such scales is still a normal number."""

_NUMBERS_AT_ONCE = 1 << 22
"""Of an array that is quantized: more than layers of small networks have, and little beside the weights of large ones."""


@dataclass(frozen=True)
class QuantParams:
    """A uniform grid.

    Attributes:
        scale: one float32-representable number per channel, or a single one.
        zero_point: as many integers.
        bits: 4 to 8.
        signed: int8 container if true, uint8 otherwise.
        axis: the channel axis, None when per tensor.
        narrow: the lowest code is left out, so that the grid is symmetric about zero (weights).
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    bits: int = 8
    signed: bool = True
    axis: int | None = None
    narrow: bool = False

    def __post_init__(self) -> None:
        if len(self.scale) != len(self.zero_point) or (self.axis is None and len(self.scale) != 1):
            raise ValueError(f"{len(self.scale)} scales and {len(self.zero_point)} zero points for axis {self.axis}")
        if not 4 <= self.bits <= 8:
            raise ValueError(f"{self.bits} bits: a grid has 4 to 8")
        for scale in self.scale:
            if not _SMALLEST_ALLOWED <= scale <= float(np.finfo(np.float32).max):
                raise ValueError(f"scale {scale} is too small, too large or not a number")
        if not all(self.qmin <= z <= self.qmax for z in self.zero_point):
            raise ValueError(f"zero point outside {self.qmin}..{self.qmax}")

    @property
    def qmin(self) -> int:
        """Lowest code."""
        return int(self.narrow) - (1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """Highest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """The container."""
        return np.dtype(np.int8 if self.signed else np.uint8)

    @property
    def reduced_range(self) -> bool:
        """True when the grid does not use its whole container, so that values must be clipped at run time."""
        limits = np.iinfo(self.dtype)
        return bool(self.qmin > limits.min or self.qmax < limits.max)

    @property
    def lowest(self) -> float:
        """The lowest real number of a per-tensor grid."""
        return self.scale[0] * (self.qmin - self.zero_point[0])

    @property
    def highest(self) -> float:
        """The highest real number of a per-tensor grid."""
        return self.scale[0] * (self.qmax - self.zero_point[0])

    def rescaled(self, factor: float) -> QuantParams:
        """The grid whose numbers are those of this one times a positive factor.

        Raises:
            ValueError: a scale would leave the range of normal numbers.
        """
        return replace(self, scale=tuple(float(np.float32(s * factor)) for s in self.scale))

    def shifted(self, offset: int) -> QuantParams:
        """The grid whose numbers are those of this one, whose scale is 1, plus a whole number.

        Raises:
            ValueError: the zero point would leave the grid.
        """
        return replace(self, zero_point=tuple(z - offset for z in self.zero_point))

    def per_channel(self, rank: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """Scale (float32) and zero point (int32), shaped to broadcast against a tensor of that rank."""
        shape = [1] * rank
        if self.axis is not None:
            shape[self.axis] = len(self.scale)
        return np.asarray(self.scale, np.float32).reshape(shape), np.asarray(self.zero_point, np.int32).reshape(shape)


def _safe(scale: npt.ArrayLike) -> list[float]:
    """Scales as float32 numbers, none smaller than :data:`SMALLEST_SCALE`."""
    numbers = np.asarray(scale, np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("no grid covers a range that is not finite")
    return [float(s) for s in np.maximum(numbers, SMALLEST_SCALE).astype(np.float32).ravel()]


def affine_params(low: float, high: float, *, bits: int, signed: bool) -> QuantParams:
    """Per-tensor asymmetric grid over [low, high], widened to contain zero exactly.

    Constant or empty ranges (``low`` above ``high``) get a safe grid that still represents the constant.

    Raises:
        ValueError: the range is not finite.
    """
    if np.isnan(low) or np.isnan(high):
        raise ValueError("no grid covers a range that is not finite")
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    qmin = -(2 ** (bits - 1)) if signed else 0
    qmax = qmin + 2**bits - 1
    (scale,) = _safe((high - low) / (qmax - qmin))
    zero_point = int(np.clip(np.rint(qmin - low / scale), qmin, qmax))
    return QuantParams((scale,), (zero_point,), bits, signed)


def symmetric_params(magnitude: npt.ArrayLike, *, bits: int, axis: int | None = None) -> QuantParams:
    """Signed grid about zero that reaches the given magnitude(s): one per channel if ``axis`` is given.

    Channels that are zero throughout get a safe scale.
    """
    highest = 2 ** (bits - 1) - 1
    scale = _safe(np.asarray(magnitude, np.float64) / highest)
    return QuantParams(tuple(scale), (0,) * len(scale), bits, True, axis, narrow=True)


def quantize(x: FloatArray, grid: QuantParams) -> npt.NDArray[np.int8 | np.uint8]:
    """Real numbers to codes in the grid's container; same shape."""

    def some(x: npt.NDArray[Any], scale: npt.NDArray[Any], zero_point: npt.NDArray[Any]) -> npt.NDArray[np.int8 | np.uint8]:
        with np.errstate(over="ignore"):  # far beyond the range: infinity is clipped like any other number
            codes = np.rint(x.astype(np.float32) / scale) + zero_point
        return np.asarray(np.clip(codes, grid.qmin, grid.qmax)).astype(grid.dtype)

    return _in_slabs(some, x, grid, grid.dtype)


def dequantize(codes: npt.NDArray[Any], grid: QuantParams) -> npt.NDArray[np.float32]:
    """Codes to real numbers, float32; same shape."""

    def some(codes: npt.NDArray[Any], scale: npt.NDArray[Any], zero_point: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return np.asarray((codes.astype(np.int32) - zero_point).astype(np.float32) * scale)

    return _in_slabs(some, codes, grid, np.dtype(np.float32))


def _in_slabs(function: Callable[..., npt.NDArray[Any]], x: npt.NDArray[Any], grid: QuantParams, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Apply an elementwise function of numbers, scales and zero points to a few rows at a time of a large array: what it computes on
    the way would be many times as large.
    """
    scale, zero_point = grid.per_channel(x.ndim)
    if x.size <= _NUMBERS_AT_ONCE or x.ndim == 0:
        return function(x, scale, zero_point)
    scales, zero_points = np.broadcast_to(scale, x.shape), np.broadcast_to(zero_point, x.shape)
    result = np.empty(x.shape, dtype)
    step = max(1, _NUMBERS_AT_ONCE * len(x) // x.size)
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        result[rows] = function(x[rows], scales[rows], zero_points[rows])
    return result


def fake_quantize(x: FloatArray, grid: QuantParams) -> npt.NDArray[np.float32]:
    """Real numbers to the nearest ones on the grid, float32; same shape."""
    return dequantize(quantize(x, grid), grid)
