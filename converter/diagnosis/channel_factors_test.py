"""Factors in each channel are found and undone; errors are not taken for factors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from converter.diagnosis.channel_factors import ChannelFactors
from converter.quantization.parameters import QuantParams

Array = npt.NDArray[Any]
SCALES = np.array([0.1, 1.0, 5.0, 20.0], np.float32)
SHIFTS = np.array([3.0, 0.0, -4.0, 9.0], np.float32)


def samples(*shape: int, count: int = 4) -> list[Array]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape).astype(np.float32) for _ in range(count)]


def found(pairs: list[tuple[Array, Array]], params: QuantParams | None = None) -> ChannelFactors:
    factors = ChannelFactors(params)
    for exact, other in pairs:
        factors.add(exact, other, other)
    return factors


@pytest.mark.parametrize("shape, placed", [((1, 4, 8, 8), (1, 4, 1, 1)), ((1, 64, 4), (1, 1, 4)), ((64, 4), (1, 4))])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_factors_and_shifts_of_any_axis_are_undone(shape: tuple[int, ...], placed: tuple[int, ...], shift: float) -> None:
    scale, moved = SCALES.reshape(placed), shift * SHIFTS.reshape(placed)
    assert (found([(x, x * scale + moved) for x in samples(*shape)]).undone_db or 0.0) > 100.0


def test_channels_may_be_spread_over_axes() -> None:
    """Query, key and value, heads, and the width of a head."""
    scale = np.exp(np.random.default_rng(1).uniform(-2, 2, (1, 1, 3, 2, 4))).astype(np.float32)
    assert (found([(x, x * scale) for x in samples(1, 64, 3, 2, 4)]).undone_db or 0.0) > 100.0


def test_the_ratio_is_that_in_the_scale_of_the_file() -> None:
    """Noise of power 0.01 everywhere: signal 0.01 x 1 + 1 + 25 + 400 over four channels."""
    noise = np.random.default_rng(2)
    pairs = [(x, x * SCALES[:, None, None] + 0.1 * noise.standard_normal(x.shape)) for x in samples(1, 4, 64, 64)]
    assert found(pairs).undone_db == pytest.approx(10 * math.log10((0.01 + 1 + 25 + 400) / 0.04), abs=0.1)


def test_rounded_numbers_are_measured_on_the_files_own_grid() -> None:
    grid = QuantParams((0.5,), (0,), bits=8, signed=True)
    factors = found([(x, x * SCALES[:, None, None]) for x in samples(1, 4, 32, 32)], grid)
    assert factors.own is not None and factors.own.local_db is not None
    every = np.concatenate([x * SCALES[:, None, None] for x in samples(1, 4, 32, 32)])
    noise = np.square(every - np.clip(np.rint(every / 0.5), -128, 127) * 0.5).sum()
    assert factors.own.local_db == pytest.approx(10 * math.log10(np.square(every, dtype=np.float64).sum() / noise), abs=0.01)
    assert (factors.low, factors.high) == (every.min(), every.max())


@pytest.mark.parametrize("error", [0.3, 1.0, 3.0])
def test_noise_is_no_factor(error: float) -> None:
    noise = np.random.default_rng(3)
    assert found([(x, x + error * noise.standard_normal(x.shape).astype(np.float32)) for x in samples(1, 4, 16, 16)]).undone_db is None


def test_clipping_is_no_factor() -> None:
    assert found([(x, np.clip(x, -0.5, 0.5)) for x in samples(1, 4, 16, 16)]).undone_db is None


def test_few_numbers_are_explained_by_any_factor_and_so_by_none() -> None:
    noise = np.random.default_rng(4)
    assert found([(x, noise.standard_normal(x.shape).astype(np.float32)) for x in samples(1, 40, count=2)]).undone_db is None


def test_a_tensor_that_is_close_to_float_is_not_looked_at() -> None:
    factors = found([(x, x + np.float32(1e-3)) for x in samples(1, 4, 8, 8)])
    assert factors.sums == {} and factors.undone_db is None


def test_tensors_of_other_shapes_and_those_that_are_not_finite_are_left_out() -> None:
    x = samples(1, 4)[0]
    assert found([(x, x.reshape(4, 1)), (x * np.inf, x), (x[:, :0], x[:, :0])]).undone_db is None
