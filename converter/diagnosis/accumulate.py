"""Add up what is measured of one tensor, sample by sample, so that memory does not grow with the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.diagnosis.records import ChannelSpread, Histogram
from converter.quantization.parameters import QuantParams, fake_quantize

__all__ = ["Accumulator", "channel_spread", "decibels", "histogram_counts", "outside"]

Array = npt.NDArray[Any]

_MOST_DB = 200.0
_MAP_RANK = 4


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise), within -200 and 200 dB; 200 without noise, as :func:`converter.verify.quality.sqnr` has it."""
    if noise == 0.0:
        return _MOST_DB
    return float(np.clip(10.0 * np.log10(max(signal, 1e-300) / noise), -_MOST_DB, _MOST_DB))


def outside(values: Array, params: QuantParams) -> int:
    """How many numbers get no code of their own: those whose nearest code lies beyond the grid's ends."""
    scale, zero_point = params.per_channel(values.ndim)
    with np.errstate(over="ignore"):
        codes = np.rint(values.astype(np.float32) / scale) + zero_point
    return int(np.count_nonzero((codes < params.qmin) | (codes > params.qmax)))


def histogram_counts(values: Array, low: float, high: float, bins: int) -> tuple[npt.NDArray[np.int64], int, int]:
    """Counts in bins of one width between two numbers, and how many numbers are lower and higher.

    Args:
        values: finite numbers, any shape.
        low: the first bin holds it.
        high: the last bin holds it; higher than ``low``.
        bins: how many.
    """
    counts, _ = np.histogram(values.astype(np.float64), bins, (low, high))  # float32 cannot tell narrow bins of large numbers apart
    return counts.astype(np.int64), int(np.count_nonzero(values < low)), int(np.count_nonzero(values > high))


def channel_spread(magnitudes: Sequence[float] | Array, axis: int) -> ChannelSpread | None:
    """How different channels are, from their largest magnitudes; None for a single one."""
    sizes = np.asarray(magnitudes, np.float64)
    if sizes.size < 2:
        return None
    widest, median = int(sizes.argmax()), float(np.median(sizes))
    return ChannelSpread(axis, sizes.size, widest, float(sizes[widest]) / median if median > 0.0 else None)


def _apart(low: float, high: float) -> tuple[float, float]:
    """The same ends; further apart, about their middle, where hardly a float32 number lies between them, as of a constant tensor."""
    size = max(abs(low), abs(high))
    if high - low > 1e-5 * size:
        return low, high
    middle, reach = (low + high) / 2, 0.5 * (size or 1.0)
    return middle - reach, middle + reach


class Accumulator:
    """Running sums of one tensor.

    Args:
        params: its grid, or None.
        low: from which its histogram reaches,
        high: and to where.
        bins: of the histogram.
    """

    def __init__(self, params: QuantParams | None, low: float, high: float, bins: int) -> None:
        self.params = params
        self.low, self.high = _apart(low, high)
        self.counts = np.zeros(bins, np.int64)
        self.below = self.above = self.outside = self.size = 0
        self.signal = self.noise = 0.0
        self.other_signal = self.other_noise = 0.0
        self.compared = False
        self.magnitudes: npt.NDArray[np.float32] | None = None
        self.axis = 0

    def add(self, exact: Array, other: Array | None) -> None:
        """Take in one sample.

        Args:
            exact: float numbers of the tensor, any shape.
            other: the same as the quantized network has them, same shape; None where that is not known.
        """
        finite = np.isfinite(exact)
        whole = bool(finite.all())
        numbers = exact.reshape(-1) if whole else exact[finite]
        if not numbers.size:
            return
        counts, below, above = histogram_counts(numbers, self.low, self.high, self.counts.size)
        self.counts += counts
        self.below, self.above, self.size = self.below + below, self.above + above, self.size + numbers.size
        if self.params is not None and whole:
            self.signal += _power(exact)
            self.noise += _power(exact.astype(np.float64) - fake_quantize(exact, self.params))
            self.outside += outside(exact, self.params)
        if other is not None and other.shape == exact.shape:
            both = finite & np.isfinite(other)
            self.other_signal += _power(exact[both])
            self.other_noise += _power(exact[both].astype(np.float64) - other[both])
            self.compared = True
        self._add_channels(np.where(finite, exact, 0.0))

    def _add_channels(self, numbers: Array) -> None:
        if numbers.ndim < 2:
            return
        self.axis = 1 if numbers.ndim == _MAP_RANK else numbers.ndim - 1
        found = np.abs(numbers).max(axis=tuple(i for i in range(numbers.ndim) if i != self.axis)).astype(np.float32)
        if self.magnitudes is None:
            self.magnitudes = found
        elif self.magnitudes.shape == found.shape:
            self.magnitudes = np.maximum(self.magnitudes, found)

    @property
    def local_db(self) -> float | None:
        """SQNR of rounding alone."""
        return decibels(self.signal, self.noise) if self.params is not None and self.size else None

    @property
    def accumulated_db(self) -> float | None:
        """SQNR of the quantized network's numbers."""
        return decibels(self.other_signal, self.other_noise) if self.compared else None

    @property
    def clipped(self) -> float | None:
        """Share of numbers beyond the grid."""
        return self.outside / self.size if self.params is not None and self.size else None

    @property
    def histogram(self) -> Histogram | None:
        """Of all numbers so far."""
        if not self.size:
            return None
        return Histogram(self.low, self.high, tuple(int(c) for c in self.counts), self.below, self.above)

    @property
    def spread(self) -> ChannelSpread | None:
        """Of the channels: axis 1 of a map, else the last."""
        return None if self.magnitudes is None else channel_spread(self.magnitudes, self.axis)


def _power(x: Array) -> float:
    return float(np.square(x, dtype=np.float64).sum())
