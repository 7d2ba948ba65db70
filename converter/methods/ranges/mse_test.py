from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.calibration.observer import TensorStats
from converter.methods.problem import Problem
from converter.methods.ranges import minmax, mse
from converter.plan.choice import Constant
from converter.quantization.parameters import QuantParams, affine_params, fake_quantize
from converter.testing.one_layer import solve

SHAPES = st.sampled_from(["normal", "laplace", "positive", "outlier", "constant", "two clusters"])


def draw(kind: str, seed: int) -> npt.NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    x = {
        "normal": generator.standard_normal(4000),
        "laplace": generator.laplace(size=4000),
        "positive": np.maximum(generator.standard_normal(4000), 0),
        "outlier": np.append(generator.standard_normal(4000), 300.0),
        "constant": np.full(10, 0.7),
        "two clusters": np.append(generator.normal(-5, 0.1, 3000), generator.normal(9, 0.1, 1000)),
    }[kind]
    return np.asarray(x * 10.0 ** generator.uniform(-3, 3), np.float32)


def squared_error(x: npt.NDArray[np.float32], grid: QuantParams) -> float:
    return float(np.square(fake_quantize(x, grid).astype(np.float64) - x).sum())


@given(kind=SHAPES, seed=st.integers(0, 1000), bits=st.integers(4, 8), signed=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_error_is_never_larger_than_that_of_minmax(kind: str, seed: int, bits: int, signed: bool) -> None:
    x = draw(kind, seed)
    weights = Constant(x[: x.size // 10 * 10].reshape(10, -1), 0, bits)
    problem = Problem({"x": TensorStats(float(x.min()), float(x.max()), x, x.shape)}, {("w", 1): weights}, {"x": bits}, signed)
    best, plain = mse.choose(problem), minmax.choose(problem)
    # the two formulas for the error differ in float32 rounding of the values on the grid
    assert squared_error(x, best.tensors["x"]) <= squared_error(x, plain.tensors["x"]) * (1 + 1e-6)
    for row in range(10):
        pair = [QuantParams((c.constants["w", 1].scale[row],), (0,), bits, True, narrow=True) for c in (best, plain)]
        assert squared_error(weights.rows()[row], pair[0]) <= squared_error(weights.rows()[row], pair[1]) * (1 + 1e-6) + 1e-30


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["normal", "laplace", "outlier", "two clusters"])
def test_no_other_coarse_candidate_is_better(kind: str, bits: int) -> None:
    """The running totals give the same winner as rounding every value on every candidate grid."""
    x = draw(kind, 3)
    factors = np.arange(0.1, 1.01, 0.1)
    candidates = [
        affine_params(min(float(x.min()), 0.0) * a, max(float(x.max()), 0.0) * b, bits=bits, signed=True)
        for a, b in itertools.product(factors, factors)
    ]
    best = min(squared_error(x, grid) for grid in candidates)
    assert squared_error(x, solve(mse.choose, x, bits=bits).tensors["x"]) <= best * (1 + 1e-6)


def test_an_outlier_is_clipped_when_that_pays() -> None:
    x = np.append(np.linspace(-1, 1, 40000), 4.0)
    chosen = solve(mse.choose, x, bits=4).tensors["x"]
    assert chosen.highest < 2.0
    assert squared_error(x.astype(np.float32), chosen) < 0.5 * squared_error(
        x.astype(np.float32), solve(minmax.choose, x, bits=4).tensors["x"]
    )


def test_a_sample_that_lies_on_its_own_grid_is_kept_exactly() -> None:
    grid = solve(mse.choose, np.arange(-128, 128)).tensors["x"]
    assert grid == QuantParams((1.0,), (0,), 8, True)


def test_weight_factors_by_hand() -> None:
    """Ten weights of 0.7 and one of 1.0 on the 7 positive codes of a 4-bit grid.

    At 0.98 times the magnitude one step is 0.14: 0.7 is exact, and 1.0 misses by 0.02, for 0.0004 in all. At the full
    magnitude a step is 1/7, each 0.7 misses by 0.0143, for 0.002 in all.
    """
    row = [0.7] * 10 + [1.0]
    (scale,) = solve(mse.choose, [1.0], [row], weight_bits=4).constants["layer", 1].scale
    assert scale == pytest.approx(0.14, rel=1e-6)


def test_channels_are_chosen_one_by_one() -> None:
    rows = np.random.default_rng(0).standard_normal((300, 400)).astype(np.float32)
    together = solve(mse.choose, [1.0], rows).constants["layer", 1].scale
    apart = [solve(mse.choose, [1.0], rows[i : i + 1]).constants["layer", 1].scale[0] for i in (0, 81, 82, 299)]
    assert [together[i] for i in (0, 81, 82, 299)] == apart


def test_dead_and_empty_weights_are_left_in_peace() -> None:
    assert mse.weight_magnitudes(np.zeros((2, 3), np.float32), 8).tolist() == [0.0, 0.0]
    assert mse.weight_magnitudes(np.zeros((0, 3), np.float32), 8).shape == (0,)
