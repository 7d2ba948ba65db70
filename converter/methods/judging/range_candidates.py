"""Candidates for the grid of an activation, and the best of them.

As in Q-HyViT (arXiv 2303.12557, section 3.3): a hundred scales between 0.01 and 1.2 times the one that covers the observed
range, for a symmetric and an asymmetric zero point. Around the best of them either end of the range is moved by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from converter.quantization.parameters import SMALLEST_SCALE, QuantParams

__all__ = ["covering", "scale_candidates", "shortlist", "with_moved_ends"]

_FACTORS = np.linspace(0.01, 1.2, 100)
_ENDS = (0.7, 0.8, 0.9, 1.0, 1.1)
_SHORTLIST = 8


def covering(low: float, high: float, bits: int, signed: bool) -> QuantParams:
    """The asymmetric grid over a range and zero, its zero point clamped to the container."""
    low, high = min(low, 0.0), max(high, 0.0)
    bottom = -(2 ** (bits - 1)) if signed else 0
    scale = float(np.float32(max((high - low) / (2**bits - 1), SMALLEST_SCALE)))
    zero = int(np.clip(np.rint(bottom - low / scale), bottom, bottom + 2**bits - 1))
    return QuantParams((scale,), (zero,), bits, signed)


def scale_candidates(low: float, high: float, bits: int, signed: bool, *, asymmetric: bool = True) -> list[QuantParams]:
    """All scales over an observed range, of both schemes or of the symmetric one alone."""
    whole = covering(low, high, bits, signed)
    grids = [replace(whole, scale=(_safe(whole.scale[0] * f),)) for f in _FACTORS] if asymmetric else []
    if low < 0.0 < high or not asymmetric:
        half = max(-low, high) / (2 ** (bits - 1) - 1)
        middle = 0 if signed else 2 ** (bits - 1)
        grids += [QuantParams((_safe(half * f),), (middle,), bits, signed) for f in _FACTORS]
    return grids


def with_moved_ends(grid: QuantParams) -> list[QuantParams]:
    """Asymmetric grids over the same range with either end up to 0.7 or 1.1 times as far from zero."""
    return [covering(grid.lowest * a, grid.highest * b, grid.bits, grid.signed) for a in _ENDS for b in _ENDS]


def shortlist(grids: Sequence[QuantParams], errors: torch.Tensor) -> list[QuantParams]:
    """The eight grids of least error, best first; of equals the earlier. ``errors`` is [grids]."""
    return [grids[int(i)] for i in torch.argsort(errors, stable=True)[:_SHORTLIST]]


def _safe(scale: float) -> float:
    return float(np.float32(max(scale, SMALLEST_SCALE)))
