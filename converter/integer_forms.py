"""Grids inside operators whose integer form is more than one node, and codes of clamps. Pure numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converter.grids import Grid, quantize

__all__ = ["HARD_SIGMOID_OFFSET", "clamp_codes", "gate_grid", "offset_grid"]

HARD_SIGMOID_OFFSET = 3.0


def gate_grid(*, signed: bool) -> Grid:
    """The grid of relu6(x + 3) inside an integer HardSwish: 0 to 6 over all codes of the container.

    It enters no layer, so it has 8 bits whatever the width of x is, and its container alone keeps it within its limits.
    """
    return _from_zero(6.0, signed=signed)


def offset_grid(*, signed: bool) -> Grid:
    """A grid on which the constant 3 is exact: the highest code of the container."""
    return _from_zero(HARD_SIGMOID_OFFSET, signed=signed)


def _from_zero(highest: float, *, signed: bool) -> Grid:
    return Grid((float(np.float32(highest / 255)),), (-128 if signed else 0,), 8, signed)


def clamp_codes(op_type: str, limits: Sequence[float | None], grid: Grid) -> tuple[int, int]:
    """Lowest and highest code that a Relu's or Clip's output can have on a per-tensor grid.

    Args:
        op_type: ``Relu``, or ``Clip`` with its limits.
        limits: lowest and highest number; missing or None where there is none.
        grid: of the output.
    """
    low, high = (0.0, None) if op_type == "Relu" else (*limits, None, None)[:2]
    ends = np.asarray([-3e38 if low is None else low, 3e38 if high is None else high], np.float32)
    lowest, highest = quantize(np.clip(ends, -1e30, 1e30), grid).tolist()
    return int(lowest), int(highest)
