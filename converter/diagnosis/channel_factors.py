"""Tensors that a file holds with another factor and shift in each channel, as equalization makes them: compared after undoing these.

A conversion may fold a scale per channel into the weights on both sides of a tensor. The file then computes ``y = a x + b`` in place of the
float model's ``x``, and the outputs are the same. Without a plan, factor and shift of each channel are those of least squares.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.diagnosis.accumulate import Accumulator, decibels
from converter.quantization.parameters import QuantParams

__all__ = ["ChannelFactors"]

Array = npt.NDArray[Any]

_SUSPECT_DB = 25.0
"""A tensor that is closer to float on the first sample is taken as it is."""

_GAIN_DB = 10.0
"""By so much the ratio must rise, if a factor in each channel is to explain the difference."""

_SHIFT_GAIN_DB = 3.0
"""The same of a shift beside a factor that does explain it. What a shift takes along of the error is 0.3 dB, of 32 numbers each."""

_NUMBERS_EACH = 32
"""So many numbers there must be for each factor, since few are explained by any."""

_MOST_AXES = 3
"""Of the channels: query, key or value; head; width of a head."""

_BINS = 48
_BEYOND = 0.25
"""By this share of the grid's width its own histogram reaches beyond both ends."""


class ChannelFactors:
    """Sums that tell factor and shift of each channel, for every few axes that may be the channels'.

    Args:
        params: grid of the file, or None.
    """

    def __init__(self, params: QuantParams | None) -> None:
        self.sums: dict[tuple[int, ...], npt.NDArray[np.float64]] = {}
        self.own: Accumulator | None = None
        self.low, self.high = np.inf, -np.inf
        self._params = params
        self._suspect: bool | None = None
        self._plain = np.zeros(2)

    def add(self, exact: Array, got: Array, rounded: Array) -> None:
        """Take in one sample.

        Args:
            exact: numbers of the float model.
            got: the file's, before it rounds them.
            rounded: the same as its readers see them.
        """
        if exact.shape != rounded.shape or not (np.isfinite(exact).all() and np.isfinite(rounded).all()) or not exact.size:
            return
        x, y = exact.astype(np.float64), rounded.astype(np.float64)
        plain = np.array([np.square(x).sum(), np.square(x - y).sum()])
        if self._suspect is None:
            self._suspect = decibels(*plain) < _SUSPECT_DB
        if not self._suspect:
            return
        self._plain += plain
        self._add_own(got)
        axes = range(x.ndim)
        for channels in itertools.chain.from_iterable(itertools.combinations(axes, count) for count in range(_MOST_AXES + 1)):
            others = tuple(axis for axis in axes if axis not in channels)
            found = np.stack([part.sum(others).reshape(-1) for part in (np.ones_like(x), x, y, x * x, x * y, y * y)])
            if channels not in self.sums or self.sums[channels].shape == found.shape:
                self.sums[channels] = self.sums.get(channels, 0.0) + found

    def _add_own(self, got: Array) -> None:
        self.low, self.high = min(self.low, float(got.min())), max(self.high, float(got.max()))
        if self._params is None or self._params.axis is not None:
            return
        if self.own is None:
            beyond = _BEYOND * (self._params.highest - self._params.lowest)
            self.own = Accumulator(self._params, self._params.lowest - beyond, self._params.highest + beyond, _BINS)
        self.own.add(got, None)

    @property
    def undone_db(self) -> float | None:
        """SQNR against the float model's numbers with these factors, None where none explain a difference.

        Of more axes, or with a shift, they must explain much more than without, since each number that is fitted takes some error along.
        """
        plain = decibels(*self._plain)
        best = plain
        for axes in sorted({len(channels) for channels in self.sums}):
            gain = _GAIN_DB
            for shifted in (False, True):
                sums = [s for channels, s in self.sums.items() if len(channels) == axes and s[0].min() >= _NUMBERS_EACH]
                found = max((decibels(*_powers(s, shifted)) for s in sums), default=best)
                if found >= best + gain:
                    best, gain = found, _SHIFT_GAIN_DB
        return best if best > plain else None


def _powers(sums: npt.NDArray[np.float64], shifted: bool) -> tuple[float, float]:
    """Power of ``a x + b`` as least squares have it, and of what differs from it.

    Args:
        sums: of 1, x, y, x², xy and y², for each channel.
        shifted: b may be other than 0.
    """
    count, x, y, xx, xy, yy = sums
    if shifted:
        xx_, xy_, yy_ = xx - x * x / count, xy - x * y / count, yy - y * y / count
    else:
        xx_, xy_, yy_ = xx, xy, yy
    factor = np.divide(xy_, xx_, out=np.zeros_like(xx_), where=xx_ > 1e-12 * xx)
    shift = (y - factor * x) / count if shifted else np.zeros_like(y)
    signal = factor * factor * xx + 2 * factor * shift * x + shift * shift * count
    return float(signal.sum()), float(np.maximum(yy_ - factor * xy_, 0.0).sum())
