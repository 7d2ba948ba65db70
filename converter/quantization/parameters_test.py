from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converter.quantization import parameters
from converter.quantization.parameters import (
    SMALLEST_SCALE,
    QuantParams,
    affine_params,
    dequantize,
    fake_quantize,
    quantize,
    symmetric_params,
)

ENDS = st.floats(-1e6, 1e6, width=32)
BITS = st.integers(4, 8)
VALUES = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, max_side=5), elements=st.floats(-1e6, 1e6, width=32))


@st.composite
def affine_grids(draw: st.DrawFn) -> QuantParams:
    low, high = sorted([draw(ENDS), draw(ENDS)])
    return affine_params(low, high, bits=draw(BITS), signed=draw(st.booleans()))


@st.composite
def channels_and_grid(draw: st.DrawFn) -> tuple[npt.NDArray[np.float32], QuantParams]:
    x = draw(hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=4), elements=st.floats(-100, 100, width=32)))
    axis = draw(st.integers(0, x.ndim - 1))
    magnitude = np.abs(x).max(axis=tuple(i for i in range(x.ndim) if i != axis))
    return x, symmetric_params(magnitude, bits=draw(BITS), axis=axis)


@given(grid=affine_grids())
def test_codes_survive_the_round_trip(grid: QuantParams) -> None:
    codes = np.arange(grid.qmin, grid.qmax + 1).astype(grid.dtype)
    np.testing.assert_array_equal(quantize(dequantize(codes, grid), grid), codes)


@given(grid=affine_grids(), x=VALUES)
def test_codes_keep_shape_container_and_limits(grid: QuantParams, x: npt.NDArray[np.float32]) -> None:
    codes = quantize(x, grid)
    assert isinstance(codes, np.ndarray) and isinstance(dequantize(codes, grid), np.ndarray)
    assert codes.shape == x.shape == dequantize(codes, grid).shape
    assert codes.dtype == (np.int8 if grid.signed else np.uint8)
    lowest, highest = (-(2 ** (grid.bits - 1)), 2 ** (grid.bits - 1) - 1) if grid.signed else (0, 2**grid.bits - 1)
    assert codes.size == 0 or lowest <= codes.min() <= codes.max() <= highest


@given(grid=affine_grids())
def test_zero_is_exact(grid: QuantParams) -> None:
    assert fake_quantize(np.zeros(1, np.float32), grid)[0] == 0.0
    assert grid.lowest <= 0.0 <= grid.highest


@given(grid=affine_grids(), a=ENDS, b=ENDS)
def test_rounding_is_monotone(grid: QuantParams, a: float, b: float) -> None:
    low, high = fake_quantize(np.asarray(sorted([a, b]), np.float32), grid)
    assert low <= high


@given(low=ENDS, high=ENDS, share=st.floats(0, 1), bits=BITS, signed=st.booleans())
def test_the_error_inside_the_range_is_half_a_step(low: float, high: float, share: float, bits: int, signed: bool) -> None:
    low, high = min(low, high), max(low, high)
    grid = affine_params(low, high, bits=bits, signed=signed)
    x = np.float32(low + share * (high - low))
    error = abs(float(fake_quantize(np.asarray(x), grid)[()]) - float(x))
    # float32 itself resolves x to one part in 2^23, and the division by the scale adds as much
    assert error <= 0.5 * grid.scale[0] + 2.0**-22 * abs(float(x))


@given(case=channels_and_grid())
def test_per_channel_grids_round_every_channel_to_half_its_own_step(case: tuple[npt.NDArray[np.float32], QuantParams]) -> None:
    x, grid = case
    assert grid.axis is not None and grid.narrow and set(grid.zero_point) == {0}
    rounded = np.moveaxis(fake_quantize(x, grid), grid.axis, 0)
    for channel, expected, scale in zip(rounded, np.moveaxis(x, grid.axis, 0), grid.scale, strict=True):
        assert np.abs(channel - expected).max() <= 0.5 * scale * (1 + 1e-6)


@given(case=channels_and_grid())
def test_symmetric_grids_are_symmetric(case: tuple[npt.NDArray[np.float32], QuantParams]) -> None:
    x, grid = case
    np.testing.assert_array_equal(quantize(-x, grid), -quantize(x, grid))


@pytest.mark.parametrize(
    ("low", "high", "bits", "signed", "scale", "zero_point"),
    [
        (0.0, 255.0, 8, False, 1.0, 0),
        (-128.0, 127.0, 8, True, 1.0, 0),
        (-1.0, 3.0, 8, False, 4 / 255, 64),  # 1 / (4 / 255) = 63.75
        (-1.0, 3.0, 8, True, 4 / 255, -64),  # -128 + 63.75 = -64.25
        (2.0, 4.0, 4, False, 4 / 15, 0),  # widened to contain zero
        (-6.0, -3.0, 4, True, 6 / 15, 7),
        (-1.5, 13.5, 4, False, 1.0, 2),  # 1.5 rounds half to even
    ],
)
def test_affine_grids_by_hand(low: float, high: float, bits: int, signed: bool, scale: float, zero_point: int) -> None:
    assert affine_params(low, high, bits=bits, signed=signed) == QuantParams((float(np.float32(scale)),), (zero_point,), bits, signed)


@pytest.mark.filterwarnings("error")
def test_numbers_far_beyond_the_range_are_clipped_without_a_warning() -> None:
    grid = QuantParams((2.0**-40,), (3,), 8, False)
    assert quantize(np.array([-3e38, 3e38], np.float32), grid).tolist() == [0, 255]


def test_values_half_way_round_to_even() -> None:
    grid = QuantParams((1.0,), (0,), 8, True)
    halves = np.asarray([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, -200.0], np.float32)
    assert quantize(halves, grid).tolist() == [0, 2, 2, 0, -2, 126, 127, -128]


def test_the_narrow_grid_leaves_out_the_lowest_code() -> None:
    grid = symmetric_params(1.27, bits=8)
    assert (grid.qmin, grid.qmax, grid.reduced_range) == (-127, 127, True)
    assert quantize(np.asarray([-1.28, -1.27, 1.27], np.float32), grid).tolist() == [-127, -127, 127]


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (3.0, 3.0), (-7.5, -7.5), (1e-30, 1e-30), (-1e-42, 1e-42), (np.inf, -np.inf)])
@pytest.mark.parametrize("signed", [True, False])
def test_constant_and_empty_ranges_get_a_safe_grid(low: float, high: float, signed: bool) -> None:
    grid = affine_params(low, high, bits=8, signed=signed)
    assert grid.scale[0] >= SMALLEST_SCALE
    if np.isfinite(low):
        assert abs(float(fake_quantize(np.asarray(low, np.float32), grid)[()]) - low) <= max(1e-6 * abs(low), SMALLEST_SCALE)


def test_dead_channels_get_a_safe_scale() -> None:
    grid = symmetric_params(np.asarray([0.0, 1e-42, 127.0]), bits=8, axis=0)
    assert grid.scale == (SMALLEST_SCALE, SMALLEST_SCALE, 1.0)
    product = np.float32(grid.scale[0]) * np.float32(grid.scale[1])
    assert product >= np.finfo(np.float32).tiny


@pytest.mark.parametrize("ends", [(np.nan, 1.0), (0.0, np.nan), (0.0, np.inf), (-np.inf, 0.0)])
def test_no_grid_covers_a_range_that_is_not_finite(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="not finite"):
        affine_params(*ends, bits=8, signed=True)
    with pytest.raises(ValueError, match="not finite"):
        symmetric_params(np.asarray([1.0, ends[0] + ends[1]]), bits=8, axis=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": (0.0,)}, "too small"),
        ({"scale": (1e-42,)}, "too small"),
        ({"scale": (-1.0,)}, "too small"),
        ({"scale": (float("nan"),)}, "not a number"),
        ({"scale": (float("inf"),)}, "too large"),
        ({"scale": (1.0, 1.0)}, "2 scales"),
        ({"zero_point": (128,)}, "zero point"),
        ({"zero_point": (-129,)}, "zero point"),
        ({"zero_point": (-128,), "narrow": True}, "zero point"),
        ({"signed": False, "zero_point": (-1,)}, "zero point"),
        ({"bits": 3}, "4 to 8"),
        ({"bits": 9}, "4 to 8"),
    ],
)
def test_unsound_grids_are_refused(fields: dict[str, Any], message: str) -> None:
    sound: dict[str, Any] = {"scale": (1.0,), "zero_point": (0,), "bits": 8, "signed": True}
    with pytest.raises(ValueError, match=message):
        QuantParams(**{**sound, **fields})


@given(grid=affine_grids(), factor=st.floats(2.0**-20, 2.0**20))
def test_a_rescaled_grid_has_the_same_codes_for_rescaled_numbers(grid: QuantParams, factor: float) -> None:
    codes = np.arange(grid.qmin, grid.qmax + 1).astype(grid.dtype)
    rescaled = grid.rescaled(factor)
    np.testing.assert_allclose(dequantize(codes, rescaled), dequantize(codes, grid).astype(np.float64) * factor, rtol=3e-7)


def test_a_grid_is_never_rescaled_wrongly_in_silence() -> None:
    with pytest.raises(ValueError, match="too small"):
        QuantParams((1e-6,), (0,), 8, True).rescaled(1e-20)


@pytest.mark.parametrize(("bits", "signed", "reduced_range"), [(8, True, False), (8, False, False), (7, True, True), (4, False, True)])
def test_grids_narrower_than_their_container_say_so(bits: int, signed: bool, reduced_range: bool) -> None:
    assert QuantParams((1.0,), (0,), bits, signed).reduced_range is reduced_range


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_large_arrays_are_quantized_some_rows_at_a_time_with_the_same_result(axis: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((7, 3, 2)).astype(np.float32)
    rest = tuple(i for i in range(3) if i != axis)
    grid = symmetric_params(np.abs(x).max(axis=rest if axis is not None else None), bits=8, axis=axis)
    whole = quantize(x, grid), fake_quantize(x, grid)
    monkeypatch.setattr(parameters, "_NUMBERS_AT_ONCE", 12)
    parts = quantize(x, grid), fake_quantize(x, grid)
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one, other) and one.dtype == other.dtype
