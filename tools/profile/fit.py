"""Fit the prices of a target's costs to measured operators: non-negative least squares of the relative error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from converter.graph.operator_sets import CLAMPS
from converter.targets.costs import COLUMN_CONVOLUTION_KIND, LINEAR_CONVOLUTION_KIND, TRANSPOSE_STEP_KIND
from tools.profile.samples import Sample

__all__ = ["Fit", "fit", "fit_all", "terms_of"]

_LAYER = ("node", "element", "input", "mac", "column", "narrow_column", "odd_row")
_TERMS: Mapping[str, tuple[str, ...]] = {
    "Conv": _LAYER,
    "PointwiseConv": ("node", "element", "input", "mac", "column"),
    "DepthwiseConv": ("node", "element", "input", "mac", "group", "uneven8", "uneven16"),
    "GroupedConv": ("node", "element", "mac", "column"),
    "Linear": ("node", "element", "input", "row", "mac"),
    COLUMN_CONVOLUTION_KIND: ("node", "element", "column"),
    LINEAR_CONVOLUTION_KIND: _LAYER[:4],
    "MatMul": ("node", "element", "input", "row", "mac", "matrix", "operand"),
    "Pad": ("node", "element", "row"),
    "Transpose": ("node", "element", "block"),
    TRANSPOSE_STEP_KIND: ("node", "element", "moved", "turned", "rim", "moved_pair", "moved_piece", "piece", "single"),
    "Softmax": ("node", "element", "row"),
    "LayerNormalization": ("node", "element", "row"),
    "InstanceNormalization": ("node", "element", "group"),
    "GlobalAveragePool": ("node", "input"),
    "ReduceMean": ("node", "input"),
    "ReduceSum": ("node", "input"),
}
_SIMPLE = ("node", "element")
_CLAMP = ("element",)
"""What a clamp adds to the layer in front of it, of which it is a part."""

_DIGITS = 4
_NOTHING = 1e-10
"""Share of the costs below which a price is a rounding error of the solver."""


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


def terms_of(kind: str) -> tuple[str, ...]:
    """Features on which the cost of a kind may depend."""
    return _CLAMP if kind in CLAMPS else _TERMS.get(kind, _SIMPLE)


def fit(samples: Sequence[Sample], terms: Sequence[str], floor: float) -> Fit:
    """Prices, none of them negative, that make the sum of squared relative errors least.

    Args:
        samples: of one kind and form.
        terms: features that may count.
        floor: a cost so small that an error in proportion to it does not matter; added where errors are divided by costs.
    """
    amounts = np.array([[sample.features.get(term, 0.0) for term in terms] for sample in samples])
    costs = np.array([sample.cost for sample in samples])
    weights = 1.0 / (costs + floor)
    weighted = amounts * weights[:, None]
    lengths = np.linalg.norm(weighted, axis=0)
    lengths[lengths == 0.0] = 1.0
    parts = nnls(weighted / lengths, costs * weights)[0]  # of columns of one length: amounts differ by many orders of magnitude
    parts[parts < _NOTHING * np.linalg.norm(costs * weights)] = 0.0
    found = parts / lengths
    errors = np.abs(amounts @ found - costs) * weights
    prices = {term: _rounded(price) for term, price in zip(terms, found, strict=True) if price > 0.0}
    return Fit(prices, len(samples), float(np.median(errors)), float(errors.max()))


def fit_all(samples: Sequence[Sample], floor: float) -> dict[str, Fit]:
    """A fit for each kind among the samples, in alphabetical order."""
    kinds = sorted({sample.kind for sample in samples})
    return {kind: fit([s for s in samples if s.kind == kind], terms_of(kind), floor) for kind in kinds}


def _rounded(price: float) -> float:
    return float(f"{price:.{_DIGITS}g}")
