"""A margin for numbers that were not seen: of the grids that do about as well, the widest.

What is cut off of a tensor is rare on the samples that ranges were fitted to, and the next samples hold more of it: a
grid that is best on a few samples is too narrow for others. So, as the one-standard-error rule takes the simplest of the
trees that do about as well (Breiman, Friedman, Olshen, Stone, Classification and Regression Trees, 1984, section 3.4.3),
a quarter more of the weighted error on the samples is accepted for a margin beyond them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from converter.methods.judging.range_candidates import covering
from converter.methods.judging.tensor_error import TensorSample, grid_errors
from converter.quantization.parameters import QuantParams

__all__ = ["with_margin"]

_MORE = 1.25
"""Times the least error that any of the grids leaves."""

_PARTS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Of the way from a grid's range to the observed one."""

_BEYOND = 1.15
"""Times the observed range."""


def with_margin(grid: QuantParams, tensor_sample: TensorSample, low: float, high: float, *, asymmetric: bool = True) -> QuantParams:
    """The widest of a grid and wider ones, up to a little beyond the observed range, that errs little more.

    Args:
        grid: with one scale for the whole tensor.
        tensor_sample: the tensor at some of its elements, and what they count.
        low: least number observed.
        high: greatest.
        asymmetric: False leaves the zero point where it is.
    """
    grids = [grid, *_wider(grid, min(low, grid.lowest), max(high, grid.highest), asymmetric)]
    errors = grid_errors(tensor_sample, grids)
    most = _MORE * float(errors.min())
    return next(wider for wider, error in zip(reversed(grids), reversed(errors.tolist()), strict=True) if error <= most or wider is grid)


def _wider(grid: QuantParams, low: float, high: float, asymmetric: bool) -> list[QuantParams]:
    ends = [((1.0 - p) * grid.lowest + p * low, (1.0 - p) * grid.highest + p * high) for p in _PARTS]
    ends.append((_BEYOND * low, _BEYOND * high))
    if asymmetric:
        return [covering(a, b, grid.bits, grid.signed) for a, b in ends]
    reach = max(-grid.lowest, grid.highest)
    return [replace(grid, scale=(float(np.float32(grid.scale[0] * max(1.0, max(-a, b) / reach))),)) for a, b in ends]
