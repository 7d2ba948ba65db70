"""Match rows that two models select in an order of their own, before they are compared.

A detector's boxes and scores come in rows that a TopK or a suppression chose. Rounding exchanges two queries of nearly
the same score: the detections are the same, but compared position by position nothing is alike. Rows of the same
number, of all outputs together, are assigned to each other so that the sum of their distances is smallest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_ASSIGNED", "Pair", "match_rows"]

Array = npt.NDArray[Any]
Order = npt.NDArray[np.intp]

MOST_ASSIGNED = 2000
"""Rows up to which the best assignment is sought, whose time grows with their cube. Beyond it each row in turn takes the nearest one
among this many that are free, in their order: selections keep most rows near their place."""


@dataclass(frozen=True)
class Pair:
    """An output of both models on one sample, arranged alike.

    Attributes:
        wanted: of the float model. A row without a partner stands against zeros, so that all of it is an error.
        got: of the other, same shape.
        paired: false where a row has no partner; broadcasts against both.
        unmatched: rows without a partner, on both sides together.
        alike: false where the two shapes have nothing in common; the values then stand one behind the other.
    """

    wanted: Array
    got: Array
    paired: npt.NDArray[np.bool_]
    unmatched: int = 0
    alike: bool = True


class _Rows(NamedTuple):
    """Rows [n, ...] by what they are compared: numbers, labels that are equal or not, and a weight for each label."""

    numbers: Array
    labels: Array
    weights: Array

    def at(self, index: Any) -> _Rows:
        return _Rows(self.numbers[index], self.labels[index], self.weights)


def match_rows(wanted: Mapping[str, Array], got: Mapping[str, Array], axes: Mapping[str, int]) -> dict[str, Pair]:
    """Arrange the outputs of two models on one sample alike.

    Args:
        wanted: float model's outputs by name.
        got: the other model's.
        axes: of the rows to be matched, by output name. An output that is not named and has one dimension of different
            sizes is matched along it.

    Returns:
        a pair for each output. Outputs that agree in the number of rows, and of places in front of them, are matched together.
    """
    pairs: dict[str, Pair] = {}
    together: dict[object, dict[str, int]] = {}
    for name, a in wanted.items():
        b = got[name]
        axis = axes.get(name, _differing_axis(a.shape, b.shape))
        if axis is None:
            pairs[name] = Pair(a, b, np.ones((1,) * a.ndim, np.bool_))
        elif _without(a.shape, axis) != _without(b.shape, axis):
            pairs[name] = _nothing_alike(a, b)
        else:
            together.setdefault((math.prod(a.shape[:axis]), a.shape[axis], b.shape[axis]), {})[name] = axis
    for found in together.values():
        pairs |= _matched({name: (wanted[name], got[name]) for name in found}, found)
    return {name: pairs[name] for name in wanted}


def _differing_axis(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The axis on which two shapes differ; the first if there are several or their ranks differ, None if they are equal."""
    if tuple(one) == tuple(other):
        return None
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def _nothing_alike(wanted: Array, got: Array) -> Pair:
    """Two arrays of which no part stands for the other, one behind the other."""
    a, b = wanted.reshape(-1), got.reshape(-1)
    return Pair(np.concatenate([a, _blank(b)]), np.concatenate([_blank(a), b]), np.zeros(1, np.bool_), a.size + b.size, alike=False)


def _rows(x: Array, axis: int) -> Array:
    """[in front of the axis, rows, behind it]."""
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))


def _blank(x: Array) -> Array:
    """What a row without a partner stands against: zeros, and the same where it is not finite."""
    if not np.issubdtype(x.dtype, np.floating):
        return np.zeros_like(x)
    return np.where(np.isfinite(x), np.zeros_like(x), x)


def _matched(outputs: Mapping[str, tuple[Array, Array]], axes: Mapping[str, int]) -> dict[str, Pair]:
    """Match the rows of several outputs together, apart for each place in front of their axis."""
    rows = {name: (_rows(a, axes[name]), _rows(b, axes[name])) for name, (a, b) in outputs.items()}
    groups, n, m = next((len(a), a.shape[1], b.shape[1]) for a, b in rows.values())
    orders = [_assignment([(a[g], b[g]) for a, b in rows.values()]) for g in range(groups)]
    result = {}
    for name, (a, b) in rows.items():
        axis, shape = axes[name], list(outputs[name][0].shape)
        shape[axis] = max(n, m)
        left, right = (_arranged(side, [order[i] for order in orders], shape[axis]).reshape(shape) for i, side in enumerate((a, b)))
        paired = (np.arange(shape[axis]) < min(n, m)).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        if n < m:
            left = np.where(paired, left, _blank(right))
        elif m < n:
            right = np.where(paired, right, _blank(left))
        result[name] = Pair(left, right, paired, groups * abs(n - m))
    return result


def _arranged(rows: Array, orders: Sequence[Order], length: int) -> Array:
    """Rows [G, n, K] in the order of each of the G, and zeros behind them: [G, length, K]."""
    result = np.zeros((rows.shape[0], length, rows.shape[2]), rows.dtype)
    for g, order in enumerate(orders):
        result[g, : rows.shape[1]] = rows[g, order]
    return result


def _assignment(parts: Sequence[tuple[Array, Array]]) -> tuple[Order, Order]:
    """Orders of the rows of both sides, in which those that belong together are at the same place and the others come last."""
    n, m = (len(side) for side in parts[0])
    left, right = _features(parts)
    if max(n, m) <= MOST_ASSIGNED:
        from scipy.optimize import linear_sum_assignment  # takes 50 MB, and few models select rows

        one, other = linear_sum_assignment(_distances(left, right))
    elif n <= m:
        one, other = np.arange(n), _nearest_in_turn(left, right)
    else:
        one, other = _nearest_in_turn(right, left), np.arange(m)
    return _with_rest(one, n), _with_rest(other, m)


def _with_rest(chosen: Order, count: int) -> Order:
    return np.concatenate([chosen, np.setdiff1d(np.arange(count), chosen)])


def _features(parts: Sequence[tuple[Array, Array]]) -> tuple[_Rows, _Rows]:
    """What the rows of both sides are compared by; each output counts by its own power."""
    numbers: list[tuple[Array, Array]] = []
    labels: list[tuple[Array, Array]] = []
    weights: list[Array] = []

    def compare_equal(pair: tuple[Array, Array], width: int) -> None:
        labels.append(pair)
        weights.append(np.full(pair[0].shape[1], 1 / max(width, 1)))

    for pair in parts:
        width = pair[0].shape[1]
        if not np.issubdtype(pair[0].dtype, np.floating):
            compare_equal(pair, width)
            continue
        finite = [np.where(np.isfinite(x), x, 0).astype(np.float64) for x in pair]
        power = float(np.square(finite[0]).mean()) if finite[0].size else 0.0
        scale = 1 / math.sqrt((power or 1.0) * max(width, 1))
        numbers.append((finite[0] * scale, finite[1] * scale))
        if not all(np.isfinite(x).all() for x in pair):
            compare_equal((np.isfinite(pair[0]), np.isfinite(pair[1])), width)

    def side(index: int) -> _Rows:
        count = len(parts[0][index])
        values, names = (np.concatenate([np.zeros((count, 0)), *(p[index] for p in some)], axis=1) for some in (numbers, labels))
        return _Rows(values, names, np.concatenate([np.zeros(0), *weights]))

    return side(0), side(1)


def _distances(left: _Rows, right: _Rows) -> Array:
    """Squared distances [n, m], plus the weights of what is not equal."""
    squares = np.square(left.numbers).sum(1)[:, None] + np.square(right.numbers).sum(1)[None]
    result: Array = np.maximum(squares - 2 * left.numbers @ right.numbers.T, 0)
    for a, b, weight in zip(left.labels.T, right.labels.T, left.weights, strict=True):
        result += weight * (a[:, None] != b[None])
    return result


def _nearest_in_turn(few: _Rows, many: _Rows) -> Order:
    """For each row the nearest one that is free, among the first so many of those."""
    order = np.arange(len(many.numbers))
    free = order[:MOST_ASSIGNED]
    chosen = np.empty(len(few.numbers), np.intp)
    for i in range(len(chosen)):
        nearest = int(_distances(few.at(slice(i, i + 1)), many.at(free)).argmin())
        chosen[i] = free[nearest]
        free = np.append(np.delete(free, nearest), order[i + MOST_ASSIGNED : i + MOST_ASSIGNED + 1])
    return chosen
