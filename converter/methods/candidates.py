"""Candidates for the grid of an activation.

As in Q-HyViT (arXiv 2303.12557, section 3.3): a hundred scales between 0.01 and 1.2 times the one that covers the observed
range, for a symmetric and an asymmetric zero point.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from converter.grids import SMALLEST_SCALE, Grid

__all__ = ["covering", "scale_candidates"]

_FACTORS = np.linspace(0.01, 1.2, 100)


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
