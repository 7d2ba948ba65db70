from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from converter.planning.average_weights import average_scales


def mixing(share: float) -> np.ndarray:
    """Weights of a token mixer with that factor, [1, 9]."""
    weights = np.full((1, 9), share / 9)
    weights[0, 4] += 1.0 - share
    return weights


def sum_error(weights: np.ndarray, scale: float) -> float:
    return float(abs((np.rint(weights / scale) * scale - weights).sum()))


def test_equal_weights_have_the_smallest_scale_and_no_error() -> None:
    (scale,) = average_scales(np.full((1, 9), 1 / 9), 127)
    assert scale == 1 / 9 / 127


@given(share=st.floats(0.08, 1.0))
def test_the_sum_of_a_mixers_weights_is_off_by_less_than_a_hundredth(share: float) -> None:
    """With the smallest scale it is up to 0.03."""
    (scale,) = average_scales(mixing(share), 127)
    assert sum_error(mixing(share), scale) < 0.01


def test_the_smallest_scale_is_worse() -> None:
    shares = np.linspace(0.08, 1.0, 200)
    smallest = [sum_error(mixing(share), mixing(share).max() / 127) for share in shares]
    chosen = [sum_error(mixing(share), average_scales(mixing(share), 127)[0]) for share in shares]
    assert np.mean(chosen) < 0.25 * np.mean(smallest)
