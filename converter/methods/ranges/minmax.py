"""Min-max: the grid covers everything that was seen. Weights: the largest magnitude of each output channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from converter.methods.problem import Problem, choose_by_ranges
from converter.plan.choice import Choice

if TYPE_CHECKING:
    from converter.calibration.observer import TensorStats

__all__ = ["choose", "magnitudes"]


def choose(problem: Problem) -> Choice:
    """Plan with observed ranges."""
    return choose_by_ranges(problem, _observed, magnitudes)


def _observed(stats: TensorStats, bits: int) -> tuple[float, float]:
    return stats.minimum, stats.maximum


def magnitudes(rows: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.float64]:
    """Largest magnitude of each row; float64 [channels]."""
    return np.asarray(np.abs(rows).max(axis=1, initial=0.0), np.float64)
