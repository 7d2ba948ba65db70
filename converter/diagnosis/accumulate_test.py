"""Figures of one tensor: golden numbers by hand, and that taking in samples one by one changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.diagnosis.accumulate import Accumulator, channel_spread, decibels, histogram_counts, outside
from converter.diagnosis.records import ChannelSpread, Histogram
from converter.quantization.parameters import QuantParams, affine_params, symmetric_params
from converter.verify.quality import sqnr

HALVES = QuantParams((0.5,), (0,), bits=4, signed=True)
"""Codes -8 to 7 stand for -4 to 3.5."""

NUMBERS = np.array([0.2, 0.3, 1.1, -4.2, 3.7, 5.0], np.float32)
"""On that grid 0, 0.5, 1, -4, 3.5 and 3.5; only the last has its nearest code beyond the end."""


def test_local_sqnr_is_the_power_of_the_numbers_over_that_of_rounding_them() -> None:
    found = Accumulator(HALVES, -4.2, 5.0, 4)
    found.add(NUMBERS, None)
    signal = 0.04 + 0.09 + 1.21 + 17.64 + 13.69 + 25.0
    noise = 0.04 + 0.04 + 0.01 + 0.04 + 0.04 + 2.25
    assert found.local_db == pytest.approx(10 * math.log10(signal / noise), abs=1e-5) == pytest.approx(13.7713, abs=1e-4)
    assert found.accumulated_db is None, "nothing is known of the quantized network"


def test_accumulated_sqnr_compares_with_the_quantized_network() -> None:
    found = Accumulator(None, 3.0, 4.0, 4)
    found.add(np.array([3.0, 4.0], np.float32), np.array([3.1, 3.8], np.float32))
    assert found.accumulated_db == pytest.approx(10 * math.log10(25.0 / 0.05), abs=1e-4) == pytest.approx(26.9897, abs=1e-4)
    assert found.local_db is None and found.clipped is None, "it has no grid"


def test_clipped_is_the_share_whose_nearest_code_lies_beyond_the_grid() -> None:
    found = Accumulator(HALVES, -4.2, 5.0, 4)
    found.add(NUMBERS, None)
    assert found.clipped == 1 / 6
    assert outside(np.array([-4.25, -4.26, 3.74, 3.76], np.float32), HALVES) == 2, "less than half a step beyond the end is only rounded"


def test_each_channel_is_clipped_by_its_own_grid() -> None:
    two = QuantParams((0.5, 1.0), (0, 0), bits=4, signed=True, axis=0)
    assert outside(np.array([[5.0, 3.0], [5.0, 9.0]], np.float32), two) == 2


def test_histogram() -> None:
    found = Accumulator(HALVES, -4.2, 5.0, 4)
    found.add(NUMBERS, None)
    assert found.histogram == Histogram(-4.2, 5.0, (1, 2, 1, 2)), "bins of 2.3"


def test_numbers_beyond_the_histogram_are_counted_apart() -> None:
    counts, below, above = histogram_counts(np.array([-2.0, 0.0, 0.4, 0.6, 1.0, 3.0, 4.0]), 0.0, 1.0, 2)
    assert (counts.tolist(), below, above) == ([2, 2], 1, 2), "the last bin holds its end"


@pytest.mark.parametrize("low, high", [(0.0, 0.0), (7.0, 7.0), (-1e6, float(np.nextafter(np.float32(-1e6), np.float32(0)))), (1e30, 1e30)])
def test_constant_tensors_and_those_of_neighbouring_numbers_have_a_histogram_too(low: float, high: float) -> None:
    found = Accumulator(None, low, high, 96)
    found.add(np.array([low, high], np.float32), None)
    assert found.histogram is not None
    assert sum(found.histogram.counts) == 2
    assert found.histogram.low < low <= high < found.histogram.high


def test_what_is_not_finite_is_left_out() -> None:
    found = Accumulator(None, 0.0, 2.0, 2)
    found.add(np.array([np.inf, 1.5, np.nan], np.float32), np.array([np.inf, 1.4, 0.0], np.float32))
    assert found.histogram == Histogram(0.0, 2.0, (0, 1))
    assert found.accumulated_db == pytest.approx(20 * math.log10(1.5 / 0.1), abs=1e-4)


def test_a_tensor_without_numbers_has_no_figures() -> None:
    found = Accumulator(HALVES, 0.0, 1.0, 4)
    found.add(np.zeros((1, 0), np.float32), np.zeros((1, 0), np.float32))
    assert (found.local_db, found.accumulated_db, found.clipped, found.histogram, found.spread) == (None,) * 5


@given(st.lists(st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4), min_size=1, max_size=6))
def test_samples_one_by_one_give_what_all_at_once_gives(rows: list[list[float]]) -> None:
    samples = np.asarray(rows, np.float32).reshape(-1, 1, 2, 2)
    params = affine_params(-50, 60, bits=6, signed=False)
    one, whole = (Accumulator(params, -80.0, 80.0, 16) for _ in range(2))
    for sample in samples:
        one.add(sample[None], sample[None] + 0.25)
    whole.add(samples, samples + 0.25)
    assert one.local_db == pytest.approx(whole.local_db)
    assert one.accumulated_db == pytest.approx(whole.accumulated_db)
    assert (one.clipped, one.histogram, one.spread) == (whole.clipped, whole.histogram, whole.spread)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20))
def test_the_ratio_is_that_of_the_verdict(numbers: list[float]) -> None:
    exact = np.asarray(numbers, np.float32)
    other = exact + np.float32(0.5)
    found = Accumulator(None, -1.0, 1.0, 4)
    found.add(exact, other)
    assert found.accumulated_db == pytest.approx(sqnr(exact, other))


@pytest.mark.parametrize("signal, noise, db", [(100.0, 1.0, 20.0), (5.0, 0.0, 200.0), (0.0, 1.0, -200.0), (0.0, 0.0, 200.0)])
def test_decibels(signal: float, noise: float, db: float) -> None:
    assert decibels(signal, noise) == db


def test_the_widest_channel_is_told_with_its_ratio_to_the_median() -> None:
    assert channel_spread([1.0, 2.0, 80.0, 3.0, 2.0], axis=1) == ChannelSpread(1, 5, 2, 40.0)
    assert channel_spread([0.0, 0.0, 4.0], axis=1) == ChannelSpread(1, 3, 2, None), "no ratio to a channel that is zero"
    assert channel_spread([3.0], axis=1) is None


def test_channels_are_the_second_axis_of_maps_and_the_last_of_anything_else() -> None:
    tokens = Accumulator(None, -9.0, 9.0, 4)
    tokens.add(np.array([[[1.0, -9.0, 2.0], [1.5, 3.0, 0.0]]], np.float32), None)
    assert tokens.spread == ChannelSpread(2, 3, 1, 4.5)
    maps = Accumulator(None, -9.0, 9.0, 4)
    maps.add(np.array([[[[1.0, -9.0]], [[1.5, 3.0]]]], np.float32), None)
    assert maps.spread == ChannelSpread(1, 2, 0, 9.0 / 6.0)


def test_weights_have_a_grid_for_each_channel() -> None:
    found = Accumulator(symmetric_params([1.0, 100.0], bits=8, axis=0), -100.0, 100.0, 4)
    found.add(np.array([[1.0, 0.5], [100.0, 50.0]], np.float32), None)
    # steps of 1/127 and 100/127; halves are half a step away, ends are exact
    noise = (0.5 / 127) ** 2 + (50 / 127) ** 2
    assert found.local_db == pytest.approx(10 * math.log10((1 + 0.25 + 10000 + 2500) / noise), abs=1e-4)
