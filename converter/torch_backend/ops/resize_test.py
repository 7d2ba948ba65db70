from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from converter.torch_backend import ops as torch_ops
from converter.torch_backend.ops.testing.operators import check_operator, floats, ints

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


@pytest.mark.parametrize("factors", FACTORS, ids=str)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_places_that_are_symmetric_whatever_the_size(factors: tuple[float, float], mode: str) -> None:
    check_operator("Resize", [X, None, scales(*factors)], mode=mode, coordinate_transformation_mode="half_pixel_symmetric")


@pytest.mark.parametrize("factors", [*FACTORS, (0.3, 0.7)], ids=str)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("where", ["half_pixel", "align_corners"])
@pytest.mark.parametrize("exclude_outside", [0, 1])
def test_antialiasing(factors: tuple[float, float], mode: str, where: str, exclude_outside: int) -> None:
    attrs: dict[str, Any] = {"exclude_outside": exclude_outside} if mode == "cubic" else {}
    check_operator("Resize", [X, None, scales(*factors)], mode=mode, coordinate_transformation_mode=where, antialias=1, **attrs)


@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_weights_of_places_outside_can_be_left_out(factors: tuple[float, float]) -> None:
    check_operator("Resize", [X, None, scales(*factors)], mode="cubic", exclude_outside=1)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("region", [(0, 0, 0.1, 0.2, 1, 1, 0.8, 0.9), (0, 0, -0.3, 0, 1, 1, 1.2, 1)], ids=["fused", "beyond"])
def test_a_region_with_one_number_around_it(region: tuple[float, ...], mode: str) -> None:
    attrs: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 7.5}
    check_operator("Resize", [X, np.asarray(region, np.float32), None, ints(2, 3, 7, 4)], **attrs)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("sizes", [(7, 4), (3, 5), (9, 11), (2, 2)], ids=str)
def test_sizes_that_keep_the_aspect_ratio(sizes: tuple[int, int], mode: str, policy: str) -> None:
    check_operator("Resize", [X, None, None, ints(*sizes)], mode=mode, axes=[2, 3], keep_aspect_ratio_policy=policy)


def test_a_factor_that_is_no_exact_number_in_float32() -> None:
    """9 times 15 / 9 is 15, although 15 / 9 in float32 is less."""
    check_operator("Resize", [floats(1, 2, 9, 8), None, scales(15 / 9, 15 / 9)], mode="linear")


@pytest.mark.parametrize(
    ("attrs", "named"),
    [
        ({"mode": "lanczos"}, "mode=lanczos"),
        ({"coordinate_transformation_mode": "elsewhere"}, "elsewhere"),
        ({"nearest_mode": "away"}, "nearest_mode=away"),
    ],
)
def test_what_is_not_covered_is_named(attrs: dict[str, Any], named: str) -> None:
    with pytest.raises(torch_ops.UnknownOperatorError, match=named):
        torch_ops.apply("Resize", [torch.zeros(1, 1, 2, 2), None, torch.tensor([1.0, 1.0, 2.0, 2.0])], attrs)
