"""Fit the prices of a target's costs to measured operators: non-negative least squares of the relative error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from converter.graph.operator_sets import CLAMPS
from converter.targets.costs import COLUMN_CONVOLUTION_KIND, LINEAR_CONVOLUTION_KIND, TRANSPOSE_STEP_KIND
from tools.profile.samples import Sample

__all__ = ["Fit", "fit", "fit_all", "terms_of"]

_TERMS: Mapping[str, tuple[str, ...]] = {
    "Conv": ("node", "element", "input", "mac", "column", "strided_column", "column_row"),
    "PointwiseConv": ("node", "element", "input", "mac", "column"),
    "DepthwiseConv": ("node", "element", "input", "row", "mac", "group", "column", "strided_column", "column_row", "uneven16"),
    "GroupedConv": ("node", "element", "mac", "column"),
    "Linear": ("node", "element", "input", "row", "mac"),
    COLUMN_CONVOLUTION_KIND: ("node", "element", "mac", "column"),
    LINEAR_CONVOLUTION_KIND: ("node", "element", "input", "mac"),
    "MatMul": ("node", "element", "input", "row", "mac", "matrix", "operand"),
    "AveragePool": ("node", "element", "window"),
    "MaxPool": ("node", "element", "input", "row", "window"),
    "Pad": ("node", "element", "row"),
    "Transpose": ("node", "element", "block"),
    TRANSPOSE_STEP_KIND: ("node", "element", "moved", "turned", "rim", "moved_pair", "moved_piece", "piece", "single"),
    "Softmax": ("node", "element", "row"),
    "LayerNormalization": ("node", "element", "row"),
    "InstanceNormalization": ("node", "element", "group"),
    "GlobalAveragePool": ("node", "input", "element"),
    "ReduceMean": ("node", "input"),
    "ReduceSum": ("node", "input"),
}
_INTEGER_TERMS: Mapping[str, tuple[str, ...]] = {
    "Conv": ("node", "element", "mac", "column", "run", "uneven16"),
    "DepthwiseConv": ("node", "element", "input", "mac", "run", "uneven8", "uneven16"),
}
"""Of kinds whose integer kernels go through memory in another way than those in float."""

_SIMPLE = ("node", "element")
_CLAMP = ("element",)
"""What a clamp adds to the layer in front of it, of which it is a part."""

_DIGITS = 4
_NOTHING = 1e-10
"""Share of the costs below which a price is a rounding error of the solver."""

_SPARED = 0.05
"""Share by which the root of the mean squared error may grow so that there are fewer prices."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """Prices for one form of a kind of operator.

    Attributes:
        prices: by feature; those that are zero are left out.
        samples: how many were fitted.
        median: of the relative errors, without signs.
        largest: of them.
    """

    prices: dict[str, float]
    samples: int
    median: float
    largest: float


def terms_of(kind: str, *, integer: bool = False) -> tuple[str, ...]:
    """Features on which the cost of a kind may depend, in float or in integer."""
    if kind in CLAMPS:
        return _CLAMP
    return _INTEGER_TERMS[kind] if integer and kind in _INTEGER_TERMS else _TERMS.get(kind, _SIMPLE)


def fit(samples: Sequence[Sample], terms: Sequence[str], floor: float) -> Fit:
    """Prices, none of them negative, that make the sum of squared relative errors least, but for prices that hardly make it less.

    Args:
        samples: of one kind and form.
        terms: features that may count.
        floor: a cost so small that an error in proportion to it does not matter; added where errors are divided by costs.
    """
    amounts = np.array([[sample.features.get(term, 0.0) for term in terms] for sample in samples])
    costs = np.array([sample.cost for sample in samples])
    weights = 1.0 / (costs + floor)
    found = _sparse(amounts * weights[:, None], costs * weights)
    errors = np.abs(amounts @ found - costs) * weights
    prices = {term: _rounded(price) for term, price in zip(terms, found, strict=True) if price > 0.0}
    return Fit(prices, len(samples), float(np.median(errors)), float(errors.max()))


def _sparse(amounts: Array, costs: Array) -> Array:
    """One by one, prices are left out while the error grows by no more than :data:`_SPARED` of the least."""
    used = np.ones(amounts.shape[1], bool)
    found = _least(amounts, costs, used)
    allowed = (1.0 + _SPARED) * np.linalg.norm(amounts @ found - costs)
    while (used := found > 0.0).any():
        fewer = [_least(amounts, costs, used & (np.arange(len(used)) != place)) for place in np.flatnonzero(used)]
        best = min(fewer, key=lambda each: float(np.linalg.norm(amounts @ each - costs)))
        if np.linalg.norm(amounts @ best - costs) > allowed:
            break
        found = best
    return found


def _least(amounts: Array, costs: Array, used: npt.NDArray[np.bool_]) -> Array:
    """Prices of the columns that are used, zeros for the others."""
    columns = amounts * used
    lengths = np.linalg.norm(columns, axis=0)
    lengths[lengths == 0.0] = 1.0
    parts = nnls(columns / lengths, costs)[0]  # of columns of one length: amounts differ by many orders of magnitude
    parts[parts < _NOTHING * np.linalg.norm(costs)] = 0.0
    prices: Array = parts / lengths
    return prices


def fit_all(samples: Sequence[Sample], floor: float, *, integer: bool = False) -> dict[str, Fit]:
    """A fit for each kind among the samples, in alphabetical order."""
    kinds = sorted({sample.kind for sample in samples})
    return {kind: fit([s for s in samples if s.kind == kind], terms_of(kind, integer=integer), floor) for kind in kinds}


def _rounded(price: float) -> float:
    return float(f"{price:.{_DIGITS}g}")
