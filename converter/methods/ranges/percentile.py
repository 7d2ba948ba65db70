"""Percentile: the grid leaves out the rarest 0.01 % of the observed values at either end. Weights as in min-max."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converter.methods.problem import Problem, choose_by_ranges
from converter.methods.ranges.minmax import magnitudes
from converter.plan.choice import Choice

if TYPE_CHECKING:
    from converter.calibration.observer import TensorStats

__all__ = ["choose"]

_LEFT_OUT = 0.01
"""Percent of the values at each end."""


def choose(problem: Problem) -> Choice:
    """Plan with percentiles of the kept sample of each tensor."""
    return choose_by_ranges(problem, _central, magnitudes)


def _central(stats: TensorStats, bits: int) -> tuple[float, float]:
    low, high = np.percentile(stats.sample, (_LEFT_OUT, 100.0 - _LEFT_OUT))
    return float(low), float(high)
