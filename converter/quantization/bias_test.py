from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.quantization.bias import bias_scale, integer_bias
from converter.quantization.parameters import SMALLEST_SCALE, QuantParams, fake_quantize, symmetric_params

BIASES = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=6)


def test_the_scale_is_the_float32_product() -> None:
    scale = bias_scale(0.1, [0.3, 1e-3])
    assert scale.dtype == np.float32
    assert scale.tolist() == [float(np.float32(0.1) * np.float32(0.3)), float(np.float32(0.1) * np.float32(1e-3))]


def test_an_ordinary_bias_by_hand() -> None:
    weights = QuantParams((0.5, 0.25), (0, 0), 8, True, axis=0, narrow=True)
    grid, codes, scale = integer_bias(np.asarray([1.0, -0.3], np.float32), 0.125, weights)
    assert grid == weights
    assert scale.tolist() == [0.0625, 0.03125]
    assert codes.tolist() == [16, -10]  # -0.3 / 0.03125 = -9.6
    assert codes.dtype == np.int32


@given(bias=BIASES, input_scale=st.floats(2.0**-40, 1e3, width=32), magnitude=st.floats(0, 10, width=32))
def test_every_bias_is_reproduced_within_one_step(bias: list[float], input_scale: float, magnitude: float) -> None:
    array = np.asarray(bias, np.float32)
    weights = symmetric_params(np.full(array.size, magnitude), bits=8, axis=0)
    grid, codes, scale = integer_bias(array, input_scale, weights)
    assert np.abs(codes.astype(np.int64)).max() <= 2**30 + 1
    assert np.isfinite(scale).all() and scale.min() >= np.finfo(np.float32).tiny
    assert np.abs(codes * scale.astype(np.float64) - array.astype(np.float64)).max() <= scale.max()
    assert all(new >= old for new, old in zip(grid.scale, weights.scale, strict=True))
    np.testing.assert_array_equal(scale, np.float32(input_scale) * np.asarray(grid.scale, np.float32))


def test_a_dead_channel_with_a_bias_does_not_overflow() -> None:
    weights = symmetric_params(np.asarray([0.0, 1.0]), bits=8, axis=0)
    assert 3.0 / (0.01 * SMALLEST_SCALE) > 2**31  # what the plain formula would store
    grid, codes, scale = integer_bias(np.asarray([3.0, 3.0], np.float32), 0.01, weights)
    assert abs(int(codes[0])) <= 2**30 + 1
    assert codes * scale.astype(np.float64) == pytest.approx(3.0, rel=1e-6)
    assert grid.scale[1] == weights.scale[1]


def test_weights_whose_grid_was_widened_lose_less_than_the_output_grid_resolves() -> None:
    """A channel of 512 tiny weights under a large bias: the products change by far less than a 255th of the bias."""
    generator = np.random.default_rng(0)
    rows = (generator.standard_normal((1, 512)) * 1e-9).astype(np.float32)
    inputs = generator.integers(0, 256, 512) * 0.02
    grid, codes, scale = integer_bias(np.asarray([5.0], np.float32), 0.02, symmetric_params(np.abs(rows).max(1), bits=8, axis=0))
    assert grid.scale[0] > np.abs(rows).max() / 127
    got = float(fake_quantize(rows, grid).astype(np.float64)[0] @ inputs + codes[0] * np.float64(scale[0]))
    exact = float(rows.astype(np.float64)[0] @ inputs + 5.0)
    assert abs(got - exact) < 5.0 / 255 / 100


def test_one_scale_for_all_channels_is_widened_once() -> None:
    weights = QuantParams((SMALLEST_SCALE,), (0,), 8, True, narrow=True)
    grid, codes, scale = integer_bias(np.asarray([4.0, -2.0], np.float32), 0.5, weights)
    assert len(grid.scale) == scale.size == 1
    assert codes * scale.astype(np.float64) == pytest.approx([4.0, -2.0], rel=1e-6)
