"""Correct a layer's weights for inputs that are off, so that its outputs are again those of the float network.

What comes into a layer of a quantized network differs from what the float network has there: by rounding, by what was cut off,
by ramps in the place of sigmoids. As far as the difference goes together with the inputs themselves, other weights make up for
it: those of least squared error between the layer's outputs in both networks (as asymmetric calibration in GPTAQ, Li et al.,
arXiv 2504.02692, section 3, which has it inside the rounding). A few samples are soon fitted and do not speak for others, so
the change is held back by a ridge penalty, whose size half of the samples choose for the other half, and is left out where
no size of it helps there. Pure numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["corrected_weights"]

Tensor = torch.Tensor

_PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Of the change, in shares of the inputs' mean power."""

_LEAST_POWER = 1e-9


@dataclass(frozen=True)
class _Moments:
    """Sums over rows: float64 [G, K, K] of inputs by inputs, [G, K, M] of inputs by missing outputs, [] of missing outputs squared."""

    inputs: Tensor
    both: Tensor
    missing: Tensor


def corrected_weights(real: Tensor, coded: Tensor, matrix: Tensor, *, centred: bool) -> Tensor:
    """Weights with which the quantized inputs give what the real ones give with the real weights, as far as samples agree.

    Args:
        real: rows of the layer's input in the float network, float32 [G, samples, P, K].
        coded: the same rows in the quantized network.
        matrix: the layer's weights, float32 [G, K, M].
        centred: leave what is off on average to the bias.

    Returns:
        float32 [G, K, M]; the matrix itself where no correction helps on samples that it was not fitted to, as with a single one.
    """
    if real.shape[1] < 2:
        return matrix
    halves = [_moments(real[:, i::2], coded[:, i::2], matrix, centred=centred) for i in (0, 1)]
    errors = [sum(_left(halves[1 - i], _change(halves[i], penalty)) for i in (0, 1)) for penalty in _PENALTIES]
    best = min(range(len(errors)), key=lambda i: float(errors[i]))
    if not float(errors[best]) < float(halves[0].missing + halves[1].missing):
        return matrix
    return (matrix.double() + _change(_sum(halves), _PENALTIES[best])).float()


def _moments(real: Tensor, coded: Tensor, matrix: Tensor, *, centred: bool) -> _Moments:
    rows, off = coded.flatten(1, 2), (real - coded).flatten(1, 2)
    if centred:
        rows, off = (x - x.mean(1, keepdim=True) for x in (rows, off))
    missing, across = off @ matrix, rows.transpose(1, 2)
    return _Moments((across @ rows).double(), (across @ missing).double(), missing.square().sum().double())


def _sum(halves: Sequence[_Moments]) -> _Moments:
    one, other = halves
    return _Moments(one.inputs + other.inputs, one.both + other.both, one.missing + other.missing)


def _change(moments: _Moments, penalty: float) -> Tensor:
    """Ridge regression of what is missing; float64 [G, K, M]."""
    power = moments.inputs.diagonal(dim1=1, dim2=2)
    ridge = (penalty * power.mean(1, keepdim=True) + _LEAST_POWER).expand_as(power)
    factor = torch.linalg.cholesky(moments.inputs + torch.diag_embed(ridge))
    return torch.cholesky_solve(moments.both, factor)


def _left(moments: _Moments, change: Tensor) -> Tensor:
    """What is still missing after a change, squared and summed over all rows and outputs; float64 []."""
    return moments.missing - 2 * (change * moments.both).sum() + (change * (moments.inputs @ change)).sum()
