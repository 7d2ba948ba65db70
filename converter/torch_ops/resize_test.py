from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from converter import torch_ops
from converter.torch_ops.conftest import check_operator, floats, ints

X = floats(2, 3, 5, 6)
PLACES = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]
FACTORS = [(2.0, 3.0), (1.5, 2.5), (0.6, 0.5), (2.0, 0.5), (0.2, 1.0)]


def scales(height: float, width: float) -> np.ndarray:
    return np.asarray([1, 1, height, width], np.float32)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("factors", FACTORS, ids=str)
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest(where: str, factors: tuple[float, float], rounding: str) -> None:
    check_operator("Resize", [X, None, scales(*factors)], mode="nearest", coordinate_transformation_mode=where, nearest_mode=rounding)


@pytest.mark.parametrize(("mode", "where"), list(itertools.product(["linear", "cubic"], PLACES)))
@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_interpolation(mode: str, where: str, factors: tuple[float, float]) -> None:
    check_operator("Resize", [X, None, scales(*factors)], mode=mode, coordinate_transformation_mode=where)


def test_interpolation_by_another_cubic() -> None:
    check_operator("Resize", [X, None, scales(1.7, 2.0)], mode="cubic", cubic_coeff_a=-0.5)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_sizes_in_place_of_scales(mode: str) -> None:
    check_operator("Resize", [X, None, None, ints(2, 3, 7, 4)], mode=mode)


def test_only_the_axes_that_are_named() -> None:
    check_operator("Resize", [X, None, np.asarray([2.0, 1.5], np.float32)], mode="linear", axes=[-1, 2])


def test_one_dimension() -> None:
    check_operator("Resize", [floats(2, 3, 5), None, np.asarray([1, 1, 2], np.float32)], mode="linear")


@pytest.mark.parametrize(
    ("attrs", "named"),
    [
        ({"mode": "linear", "antialias": 1}, "antialias=1"),
        ({"mode": "cubic", "exclude_outside": 1}, "exclude_outside=1"),
        ({"coordinate_transformation_mode": "tf_crop_and_resize"}, "tf_crop_and_resize"),
        ({"keep_aspect_ratio_policy": "not_larger"}, "keep_aspect_ratio_policy"),
    ],
)
def test_what_is_not_covered_is_named(attrs: dict[str, Any], named: str) -> None:
    with pytest.raises(torch_ops.UnknownOperatorError, match=named):
        torch_ops.apply("Resize", [torch.zeros(1, 1, 2, 2), None, torch.tensor([1.0, 1.0, 2.0, 2.0])], attrs)
