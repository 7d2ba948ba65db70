"""Correct a layer's weights for inputs that are off, so that its outputs are again those of the float network.

What comes into a layer of a quantized network differs from what the float network has there: by rounding, by what was cut off,
by piecewise-linear sigmoids. As far as the difference goes together with the inputs themselves, other weights make up for
it: those of least squared error between the layer's outputs in both networks (as asymmetric calibration in GPTAQ, Li et al.,
arXiv 2504.02692, section 3, which has it inside the rounding). A few samples are soon fitted and do not speak for others, so
the change is held back by a ridge penalty, whose size half of the samples choose for the other half, and is left out where
it does not certainly help there. Pure numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from converter.torch_backend.workers import in_order

__all__ = ["corrected_weights"]

Tensor = torch.Tensor

_PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Of the change, in shares of the inputs' mean power."""

_LEAST_POWER = 1e-9

_USUAL = 9.0
"""Times the median of what rows miss, squared: with so much a row counts half."""

_CERTAIN = 2.0
"""Standard errors by which a correction has to help."""


@dataclass(frozen=True)
class _Rows:
    """What a layer reads in the quantized network, [G, samples, P, K]; what its outputs miss, [..., M]; how much a row counts, [..., 1]."""

    inputs: Tensor
    missing: Tensor
    weights: Tensor

    def half(self, number: int) -> _Rows:
        """Every other sample, from that number on."""
        return _Rows(*(x[:, number::2] for x in (self.inputs, self.missing, self.weights)))


@dataclass(frozen=True)
class _Moments:
    """Weighted sums over rows, float64: [G, K, K] of inputs by inputs, [G, K, M] of inputs by what is missing, [] of that squared."""

    inputs: Tensor
    both: Tensor
    missing: Tensor


def corrected_weights(real: Tensor, coded: Tensor, matrix: Tensor, workers: int = 1) -> Tensor:
    """Weights with which the quantized inputs give what the real ones give with the real weights, as far as samples agree.

    Args:
        real: rows of the layer's input in the float network, float32 [G, samples, P, K].
        coded: the same rows in the quantized network.
        matrix: the layer's weights, float32 [G, K, M].
        workers: how many things may be computed at once.

    Returns:
        weights, float32 [G, K, M]; the matrix itself where no correction helps on samples that it was not fitted to, as with a
        single one. Means are not left to the bias: weights that fit deviations from the mean alone may grow where those are small, and
        what they then make of the mean is larger than what a bias can take back.
    """
    if real.shape[1] < 2:
        return matrix
    rows = _rows(real, coded, matrix)
    halves = list(in_order(lambda i: _moments(rows.half(i)), (0, 1), workers))
    least, penalty, changes = math.inf, _PENALTIES[0], list[Tensor]()
    for each in _PENALTIES:
        tried = list(in_order(partial(_tried, halves, each), (0, 1), workers))
        error = float(sum(left for _, left in tried))
        if error < least or not changes:
            least, penalty, changes = error, each, [change for change, _ in tried]
    gains = torch.cat(list(in_order(lambda i: _gains(rows.half(1 - i), changes[i]), (0, 1), workers)))
    if float(gains.mean()) <= _CERTAIN * float(gains.std()) / math.sqrt(len(gains)):
        return matrix
    return matrix + _change(_sum(halves), penalty).float()


def _rows(real: Tensor, coded: Tensor, matrix: Tensor) -> _Rows:
    missing = (real - coded) @ matrix[:, None]
    squared = missing.square().sum(3, keepdim=True)
    usual = squared.flatten(1).median(1).values[:, None, None, None]
    # a few rows from which much was cut off must not decide for all others
    return _Rows(coded, missing, (_USUAL * usual + 1e-30) / (_USUAL * usual + squared + 1e-30))


def _moments(rows: _Rows) -> _Moments:
    inputs, missing, weights = (x.flatten(1, 2) for x in (rows.inputs, rows.missing, rows.weights))
    across = (inputs * weights).transpose(1, 2)
    return _Moments((across @ inputs).double(), (across @ missing).double(), (missing.square() * weights).sum().double())


def _sum(halves: Sequence[_Moments]) -> _Moments:
    one, other = halves
    return _Moments(one.inputs + other.inputs, one.both + other.both, one.missing + other.missing)


def _tried(halves: Sequence[_Moments], penalty: float, half: int) -> tuple[Tensor, Tensor]:
    """The change that suits one half of the samples, and what it leaves in the other."""
    change = _change(halves[half], penalty)
    return change, _left(halves[1 - half], change)


def _change(moments: _Moments, penalty: float) -> Tensor:
    """Ridge regression of what is missing; float64 [G, K, M]."""
    power = moments.inputs.diagonal(dim1=1, dim2=2)
    ridge = (penalty * power.mean(1, keepdim=True) + _LEAST_POWER).expand_as(power)
    held = moments.inputs.clone()  # of a wide layer it takes 75 MB, and is held by each worker
    held.diagonal(dim1=1, dim2=2).add_(ridge)
    factor = torch.linalg.cholesky(held)
    return torch.cholesky_solve(moments.both, factor)


def _left(moments: _Moments, change: Tensor) -> Tensor:
    """What is still missing after a change, squared and summed over all rows and outputs; float64 []."""
    return moments.missing - 2 * (change * moments.both).sum() + (change * (moments.inputs @ change)).sum()


def _gains(rows: _Rows, change: Tensor) -> Tensor:
    """By how much less is missing in each sample after a change, squared; float64 [samples]."""
    left = rows.missing - rows.inputs @ change.float()[:, None]
    return ((rows.missing.square() - left.square()) * rows.weights).sum((0, 2, 3)).double()
