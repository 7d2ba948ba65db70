"""Uniform integer grids: how real numbers become k-bit integers and back. Pure NumPy.

A grid maps a real x to the integer clip(round(x / scale) + zero_point, qmin, qmax), rounding half to even as
QuantizeLinear does, and back to scale * (q - zero_point) (ONNX operator specification, QuantizeLinear-19). A grid of
fewer than 8 bits lives in an 8-bit container and uses only part of its range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["SMALLEST_SCALE", "FloatArray", "Grid", "affine_grid", "dequantize", "fake_quantize", "quantize", "symmetric_grid"]

FloatArray = npt.NDArray[np.floating[Any]]

SMALLEST_SCALE = 2.0**-40
"""No scale is smaller: products of two scales and their quotients by a third stay normal float32 numbers."""


@dataclass(frozen=True)
class Grid:
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
        if not 2 <= self.bits <= 8:
            raise ValueError(f"{self.bits} bits do not fit an 8-bit container")
        if not all(np.isfinite(s) and s >= SMALLEST_SCALE / 2 for s in self.scale):
            raise ValueError(f"scale {min(self.scale)} is zero, denormal or not finite")
        if not all(self.qmin <= z <= self.qmax for z in self.zero_point):
            raise ValueError(f"zero point outside {self.qmin}..{self.qmax}")

    @property
    def qmin(self) -> int:
        """Lowest code."""
        return (-(2 ** (self.bits - 1)) + int(self.narrow)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """Highest code."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """The container."""
        return np.dtype(np.int8 if self.signed else np.uint8)

    @property
    def confined(self) -> bool:
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

    def rescaled(self, factor: float) -> Grid:
        """The grid whose numbers are those of this one times a positive factor."""
        return Grid(tuple(_safe(np.asarray(self.scale) * factor)), self.zero_point, self.bits, self.signed, self.axis, self.narrow)

    def per_channel(self, rank: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """Scale (float32) and zero point (int32), shaped to broadcast against a tensor of that rank."""
        shape = [1] * rank
        if self.axis is not None:
            shape[self.axis] = len(self.scale)
        return np.asarray(self.scale, np.float32).reshape(shape), np.asarray(self.zero_point, np.int32).reshape(shape)


def _safe(scale: npt.ArrayLike) -> list[float]:
    """Scales as float32 numbers that are never zero, denormal or not finite."""
    finite = np.nan_to_num(np.asarray(scale, np.float64), nan=0.0, posinf=float(np.finfo(np.float32).max))
    return [float(s) for s in np.maximum(finite, SMALLEST_SCALE).astype(np.float32).ravel()]


def affine_grid(low: float, high: float, *, bits: int, signed: bool) -> Grid:
    """Per-tensor asymmetric grid over [low, high], widened to contain zero exactly.

    Constant or empty ranges get a safe grid that still represents the constant.
    """
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    qmin = -(2 ** (bits - 1)) if signed else 0
    qmax = qmin + 2**bits - 1
    (scale,) = _safe((high - low) / (qmax - qmin))
    zero_point = int(np.clip(np.rint(qmin - low / scale), qmin, qmax))
    return Grid((scale,), (zero_point,), bits, signed)


def symmetric_grid(magnitude: npt.ArrayLike, *, bits: int, axis: int | None = None) -> Grid:
    """Signed grid about zero that reaches the given magnitude(s): one per channel if ``axis`` is given.

    Channels that are zero throughout get a safe scale.
    """
    highest = 2 ** (bits - 1) - 1
    scale = _safe(np.asarray(magnitude, np.float64) / highest)
    return Grid(tuple(scale), (0,) * len(scale), bits, True, axis, narrow=True)


def quantize(x: FloatArray, grid: Grid) -> npt.NDArray[np.int8 | np.uint8]:
    """Real numbers to codes in the grid's container; same shape."""
    scale, zero_point = grid.per_channel(x.ndim)
    codes = np.rint(x.astype(np.float32) / scale) + zero_point
    return np.clip(codes, grid.qmin, grid.qmax).astype(grid.dtype)


def dequantize(codes: npt.NDArray[Any], grid: Grid) -> npt.NDArray[np.float32]:
    """Codes to real numbers, float32; same shape."""
    scale, zero_point = grid.per_channel(codes.ndim)
    return ((codes.astype(np.int32) - zero_point).astype(np.float32) * scale).astype(np.float32)


def fake_quantize(x: FloatArray, grid: Grid) -> npt.NDArray[np.float32]:
    """Real numbers to the nearest ones on the grid, float32; same shape."""
    return dequantize(quantize(x, grid), grid)
