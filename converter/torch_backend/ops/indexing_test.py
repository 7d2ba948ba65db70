from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from converter.torch_backend import ops as torch_ops
from converter.torch_backend.ops.testing.operators import Array, check_operator, floats, ints

X = floats(3, 4, 5)


def index(*shape: int, below: int, dtype: Any = np.int64) -> Array:
    """Places from either end."""
    return np.random.default_rng(0).integers(-below, below, shape).astype(dtype)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_gather_elements(axis: int, dtype: Any) -> None:
    shape = [2, 3, 4]
    shape[axis] = 7
    places = index(*shape, below=X.shape[axis], dtype=dtype)
    check_operator("GatherElements", [X, places], axis=axis)
    check_operator("GatherElements", [X, places], axis=axis, mapped=[0, 1])


@pytest.mark.parametrize("axis", [0, -1])
def test_gather_at_places_that_differ_between_samples(axis: int) -> None:
    check_operator("Gather", [X, index(2, 2, below=X.shape[axis])], axis=axis, mapped=[0, 1])
    check_operator("Gather", [X, index(2, 2, below=X.shape[axis])], axis=axis, mapped=[1])


@pytest.mark.parametrize(
    ("places", "batch"), [((2,), 0), ((6, 1), 0), ((2, 3, 2), 0), ((4, 3), 0), ((3, 2), 1), ((3, 6, 1), 1), ((3, 4, 1), 2)], ids=str
)
def test_gather_nd(places: tuple[int, ...], batch: int) -> None:
    rows = index(*places, below=3)
    check_operator("GatherND", [X, rows], batch_dims=batch)
    check_operator("GatherND", [X, rows], batch_dims=batch, mapped=[0, 1])


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scatter_elements(axis: int, reduction: str) -> None:
    places = np.argsort(floats(2, 3, 4, seed=1), axis=axis) - (2 if reduction == "none" else 1)
    check_operator("ScatterElements", [X, places, floats(2, 3, 4, seed=2)], axis=axis, reduction=reduction)
    check_operator("ScatterElements", [X, places, floats(2, 3, 4, seed=2)], axis=axis, reduction=reduction, mapped=[0, 1, 2])


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize(
    ("places", "updates"), [([[0], [-1]], (2, 4, 5)), ([[0, 1], [2, -1], [1, 1]], (3, 5)), ([[[0, 1, 2], [2, -1, 0]]], (1, 2))]
)
def test_scatter_nd(places: list[Any], updates: tuple[int, ...], reduction: str) -> None:
    inputs = [X, np.asarray(places), floats(*updates, seed=2)]
    check_operator("ScatterND", inputs, reduction=reduction)
    check_operator("ScatterND", inputs, reduction=reduction, mapped=[0, 2])


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("largest", [0, 1])
def test_top_k(axis: int, largest: int) -> None:
    check_operator("TopK", [X, ints(3)], outputs=2, axis=axis, largest=largest)


@pytest.mark.parametrize("largest", [0, 1])
def test_of_equal_numbers_the_first_comes_first(largest: int) -> None:
    check_operator("TopK", [np.round(floats(2, 40)), ints(17)], outputs=2, largest=largest)


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_one_hot(axis: int) -> None:
    check_operator("OneHot", [index(3, 4, below=5), np.asarray(5, np.int64), np.asarray([0.5, 2.0], np.float32)], axis=axis)
    check_operator("OneHot", [ints(1, 9, -9), ints(3), np.asarray([0, 1], np.float32)], mapped=[0])


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("attrs", [{}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}], ids=str)
def test_cumulative_sum(axis: int, attrs: dict[str, Any]) -> None:
    check_operator("CumSum", [X, np.asarray(axis, np.int32)], **attrs)
    check_operator("CumSum", [index(2, 3, below=9, dtype=np.int32), ints(axis % 2)], **attrs)


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("offset", [None, 0, 1, -2])
def test_triangle(upper: int, offset: int | None) -> None:
    check_operator("Trilu", [X] + ([] if offset is None else [np.asarray(offset, np.int64)]), upper=upper)


@pytest.mark.parametrize(("time", "batch"), [(0, 1), (1, 0)])
def test_sequences_turned_around(time: int, batch: int) -> None:
    lengths = ints(1, 3, 2, 3)[: X.shape[batch]]
    check_operator("ReverseSequence", [X, lengths], time_axis=time, batch_axis=batch)


def test_an_unknown_reduction_is_named() -> None:
    with pytest.raises(torch_ops.UnknownOperatorError, match="'ScatterND' with reduction=median"):
        torch_ops.apply("ScatterND", [torch.zeros(2), torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1)], {"reduction": "median"})
