from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from converter.torch_backend import ops as torch_ops
from converter.torch_backend.ops import pooling
from converter.torch_backend.ops.testing.operators import check_operator, floats, ints, positive

GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_shape": [3, 3]},
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [1, 0, 0, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [3, 2], "strides": [2, 3], "auto_pad": "VALID"},
    {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [0, 0, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
]


@pytest.mark.parametrize("attrs", GEOMETRIES, ids=str)
@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_average_pool(attrs: dict[str, Any], count_include_pad: int) -> None:
    check_operator("AveragePool", [floats(2, 3, 7, 8)], count_include_pad=count_include_pad, **attrs)


@pytest.mark.parametrize("attrs", [*GEOMETRIES, {"kernel_shape": [2, 2], "dilations": [2, 3], "pads": [1, 1, 1, 1]}], ids=str)
def test_max_pool(attrs: dict[str, Any]) -> None:
    check_operator("MaxPool", [floats(2, 3, 7, 8) - 5], outputs=2, **attrs)


WINDOWS_TOO_LARGE: list[dict[str, Any]] = [
    {"kernel_shape": [3, 3], "pads": [0, 1, 1, 0], "strides": [3, 3]},
    {"kernel_shape": [4, 3], "strides": [4, 2]},
    {"kernel_shape": [5, 5], "strides": [3, 6], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [5, 5], "strides": [3, 6], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [2, 3], "pads": [0, 0, 0, 1]},
    {"kernel_shape": [2, 2]},
]


@pytest.mark.parametrize("attrs", WINDOWS_TOO_LARGE, ids=str)
def test_a_window_larger_than_the_padded_input_is_cut_off(attrs: dict[str, Any]) -> None:
    """Where the runtime still makes a place of it; it makes none if the stride is one."""
    check_operator("MaxPool", [floats(1, 2, 9, 1)], outputs=2, **attrs)


@pytest.mark.parametrize("attrs", WINDOWS_TOO_LARGE[:2], ids=str)
def test_the_mean_over_a_window_larger_than_the_padded_input(attrs: dict[str, Any]) -> None:
    check_operator("AveragePool", [floats(1, 2, 9, 1)], **attrs)


@pytest.mark.parametrize("op_type", ["AveragePool", "LpPool", "MaxPool"])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_pools_over_one_to_three_axes(op_type: str, dims: int, ceil_mode: int) -> None:
    attrs: dict[str, Any] = {"kernel_shape": [3, 2, 2][:dims], "strides": [2, 2, 1][:dims], "pads": [1, 0, 1][:dims] + [1, 1, 0][:dims]}
    check_operator(op_type, [floats(2, 3, *(7, 6, 5)[:dims])], outputs=2 if op_type == "MaxPool" else 1, ceil_mode=ceil_mode, **attrs)


def test_max_pool_of_integers() -> None:
    check_operator("MaxPool", [np.arange(-18, 18, dtype=np.int8).reshape(1, 1, 6, 6)], outputs=2, kernel_shape=[2, 2], strides=[2, 2])


@pytest.mark.parametrize("p", [1, 2, 3])
def test_pools_by_a_power(p: int) -> None:
    check_operator("LpPool", [floats(2, 3, 7, 8)], kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], p=p)
    check_operator("GlobalLpPool", [floats(2, 3, 7, 8)], p=p)


def test_maxima_go_back_to_their_places() -> None:
    x = torch.from_numpy(floats(2, 3, 6, 8))
    attrs: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    values, places = torch_ops.apply("MaxPool", [x], attrs)
    check_operator("MaxUnpool", [values.numpy(), places.numpy()], **attrs)


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5)])
def test_global_pools(op_type: str, shape: tuple[int, ...]) -> None:
    check_operator(op_type, [floats(*shape)])


@pytest.mark.parametrize("op_type", sorted(t for t in pooling.TABLE if t.startswith("Reduce")))
@pytest.mark.parametrize("axes", [(1,), (-1,), (0, 2), (-2, 0), None, ()], ids=str)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(op_type: str, axes: tuple[int, ...] | None, keepdims: int) -> None:
    check_operator(op_type, [positive(2, 3, 4)] + ([] if axes is None else [ints(*axes)]), keepdims=keepdims)


@pytest.mark.parametrize("op_type", ["ReduceL2", "ReduceMax", "ReduceProd", "ReduceSum"])
@pytest.mark.parametrize("axes", [None, (), (1,)], ids=str)
def test_no_axes_can_mean_no_reduction(op_type: str, axes: tuple[int, ...] | None) -> None:
    check_operator(op_type, [positive(2, 3)] + ([] if axes is None else [ints(*axes)]), noop_with_empty_axes=1)


@pytest.mark.parametrize("op_type", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("attrs", [{}, {"axis": -1, "keepdims": 0}, {"axis": 1}, {"axis": 1, "select_last_index": 1}], ids=str)
def test_places_of_extremes(op_type: str, attrs: dict[str, Any]) -> None:
    check_operator(op_type, [floats(2, 3, 4)], **attrs)


def test_the_first_of_equal_maxima_wins() -> None:
    check_operator("ArgMax", [np.asarray([[1, 3, 3], [2, 2, 2]], np.float32)], axis=1)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_or_the_last_one(keepdims: int) -> None:
    check_operator("ArgMax", [np.asarray([[1, 3, 3], [2, 2, 2]], np.float32)], axis=1, select_last_index=1, keepdims=keepdims)


@pytest.mark.parametrize(
    ("op_type", "attrs", "named"),
    [
        ("AveragePool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "dilations"),
        ("MaxPool", {"kernel_shape": [2] * 4}, "kernel_shape"),
        ("MaxPool", {"kernel_shape": [2, 2], "storage_order": 1}, "storage_order=1"),
        ("LpPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "dilations"),
    ],
)
def test_what_is_not_covered_is_named(op_type: str, attrs: dict[str, Any], named: str) -> None:
    with pytest.raises(torch_ops.UnknownOperatorError, match=named):
        torch_ops.apply(op_type, [torch.zeros(1, 1, 4, 4)], attrs)
