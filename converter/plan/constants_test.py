"""Codes and biases that a plan prescribes are stored as they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from converter.plan.constants import bias_of, codes_from_text, codes_to_text, weight_codes
from converter.plan.records import OpPlan
from converter.quantization.parameters import symmetric_params

WEIGHT = np.asarray([[0.4, -1.0, 0.2], [2.0, 0.1, -0.7]], np.float32)
GRID = symmetric_params(np.asarray([1.0, 2.0]), bits=4, axis=0)
CODES = np.asarray([[3, -7, 2], [7, 0, -3]], np.int8)


@given(arrays.arrays(np.int8, arrays.array_shapes(max_dims=4, max_side=6)))
def test_codes_survive_the_text(codes: np.ndarray) -> None:
    assert np.array_equal(codes_from_text(codes_to_text(codes), codes.shape), codes)


@pytest.mark.parametrize("text", ["!", "AAAA", codes_to_text(CODES)[:-4]])
def test_a_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="codes"):
        codes_from_text(text, (2, 3))


def test_as_many_codes_as_weights() -> None:
    with pytest.raises(ValueError, match="6 codes for the shape"):
        codes_from_text(codes_to_text(CODES), (2, 4))


@given(st.integers(0, 1))
def test_without_codes_weights_go_to_the_nearest(channel: int) -> None:
    plain = weight_codes(OpPlan("Gemm", "integer", constants={1: GRID}), 1, WEIGHT, GRID)
    assert plain[channel].tolist() == [[3, -7, 1], [7, 0, -2]][channel]


def test_codes_of_the_plan_come_first() -> None:
    op = OpPlan("Gemm", "integer", constants={1: GRID}, codes=codes_to_text(CODES))
    assert np.array_equal(weight_codes(op, 1, WEIGHT, GRID), CODES)


def test_a_channel_whose_grid_was_widened_goes_to_the_nearest() -> None:
    wider = symmetric_params(np.asarray([1.0, 5.0]), bits=4, axis=0)
    op = OpPlan("Gemm", "integer", constants={1: GRID}, codes=codes_to_text(CODES))
    assert weight_codes(op, 1, WEIGHT, wider).tolist() == [[3, -7, 2], [3, 0, -1]]


def test_a_bias_of_the_plan_replaces_a_bias_and_makes_none() -> None:
    op = OpPlan("Gemm", "integer", bias=(1.0, 2.0))
    bias = bias_of(op, np.zeros(2, np.float32))
    assert bias is not None and bias.tolist() == [1.0, 2.0]
    assert bias_of(op, None) is None
    kept = np.asarray([3.0], np.float32)
    assert bias_of(OpPlan("Gemm", "integer"), kept) is kept
