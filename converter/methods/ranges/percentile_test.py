from __future__ import annotations

import numpy as np
import pytest

from converter.methods.ranges import minmax, percentile
from converter.testing.one_layer import solve


def test_activations_leave_out_a_hundredth_of_a_percent_at_either_end() -> None:
    # of 20001 evenly spaced values, 0.01 % lies two places from the end
    grid = solve(percentile.choose, np.arange(-10000, 10001) / 100.0).tensors["x"]
    assert grid.scale[0] == pytest.approx((99.98 + 99.98) / 255, rel=1e-6)


def test_an_outlier_is_dropped() -> None:
    sample = np.concatenate([np.linspace(-1, 1, 20000), [1000.0]])
    assert solve(percentile.choose, sample).tensors["x"].highest < 1.1
    assert solve(minmax.choose, sample).tensors["x"].highest > 900


def test_weights_are_those_of_minmax() -> None:
    weight = np.random.default_rng(0).standard_normal((5, 70))
    assert solve(percentile.choose, [1.0], weight).constants == solve(minmax.choose, [1.0], weight).constants


def test_the_grid_still_contains_zero() -> None:
    grid = solve(percentile.choose, np.linspace(5, 6, 1000)).tensors["x"]
    assert grid.lowest == 0.0
