"""A random order that stays the same."""

from __future__ import annotations

import numpy as np

__all__ = ["shuffled"]


def shuffled(size: int, seed: int) -> list[int]:
    """0 .. size-1 in a random order that no NumPy version changes, as the raw PCG64 stream is promised to stay."""
    keys = np.asarray(np.random.PCG64(seed).random_raw(size), dtype=np.uint64)
    return [int(index) for index in np.argsort(keys, kind="stable")]
