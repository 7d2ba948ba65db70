"""Labels for factors that are not known yet: which must be equal, which inverse to each other, which are one.

Each label stands for a positive factor. Joining labels says that their factors are equal; a negative label stands for
the inverse factor. Label 0 stands for the factor one, and whatever is joined with it is pinned. The same bookkeeping
serves shifts, where label 0 is the shift zero and no label is negative.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

__all__ = ["Classes", "Labels", "compress", "merge_axes"]

Labels = npt.NDArray[np.int64]
"""One label an element of a tensor; axes along which nothing varies have length one."""


class Classes:
    """Labels in classes of equal or inverse ones: union-find with signs."""

    def __init__(self) -> None:
        self._parents = [0]
        self._signs = [1]

    def fresh(self, *shape: int) -> Labels:
        """New labels, all different."""
        first, count = len(self._parents), int(np.prod(shape))
        self._parents += range(first, first + count)
        self._signs += [1] * count
        return np.arange(first, first + count, dtype=np.int64).reshape(shape)

    def resolve(self, labels: Labels) -> Labels:
        """The label of each one's class, with sign; 0 where pinned. Compressed."""
        distinct, places = np.unique(labels, return_inverse=True)
        roots = np.asarray([self._find(int(label)) for label in distinct], np.int64)
        return compress(roots[places].reshape(labels.shape))

    def join(self, left: Labels, right: Labels) -> None:
        """Say that labels in the same place are equal; the arrays broadcast."""
        pairs = np.stack([side.reshape(-1) for side in np.broadcast_arrays(left, right)])
        for a, b in np.unique(pairs, axis=1).T:
            self._join(int(a), int(b))

    def pin(self, labels: Labels) -> None:
        """Say that the factors are one."""
        self.join(labels, np.zeros(1, np.int64))

    def count(self, labels: Labels) -> int:
        """How many different factors there are."""
        return int(np.unique(np.abs(self.resolve(labels))).size)

    def _find(self, label: int) -> int:
        sign, at = (1 if label > 0 else -1), abs(label)
        while self._parents[at] != at:
            above = self._parents[at]
            self._parents[at], self._signs[at] = self._parents[above], self._signs[at] * self._signs[above]
            sign, at = sign * self._signs[at], self._parents[at]
        return sign * at

    def _join(self, left: int, right: int) -> None:
        a, b = self._find(left), self._find(right)
        if a == b:
            return
        if a == 0 or (b != 0 and abs(a) < abs(b)):
            a, b = b, a  # the smaller label stands for the class: the first that was made
        if a == -b:
            b = 0  # a factor that is its own inverse is one
        self._parents[abs(a)] = abs(b)
        self._signs[abs(a)] = 1 if (a > 0) == (b > 0) else -1


def compress(labels: Labels) -> Labels:
    """Cut every axis along which nothing varies to length one."""
    for axis in range(labels.ndim):
        first = labels.take([0], axis=axis) if labels.shape[axis] else labels
        if labels.shape[axis] > 1 and bool((labels == first).all()):
            labels = first
    return labels


def merge_axes(classes: Classes, labels: Labels, axes: Collection[int]) -> Labels:
    """Say that nothing varies along some axes; they have length one in the result."""
    first = labels
    for axis in axes:
        first = first.take([0], axis=axis)
    classes.join(labels, first)
    return first
