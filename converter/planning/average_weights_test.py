"""The weights of averages add up to what they did, however coarse the steps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from converter.planning.average_weights import summing_codes
from converter.quantization.parameters import QuantParams


def mixer(shares: list[float]) -> npt.NDArray[np.float32]:
    """Kernels of x + a * (mean - x), [channels, 1, 3, 3]."""
    each = np.array(shares, np.float32)
    weight: npt.NDArray[np.float32] = np.repeat(each / np.float32(9), 9).reshape(-1, 1, 3, 3)
    weight[:, 0, 1, 1] += 1 - each
    return weight


@given(st.lists(st.floats(-0.5, 0.8), min_size=1, max_size=4))
def test_sums_are_off_by_half_a_step_at_most_and_other_weights_are_the_nearest(shares: list[float]) -> None:
    weight = mixer(shares)
    scale = (np.abs(weight).max((1, 2, 3)) / (127 - 4)).astype(np.float32)
    codes = summing_codes(weight, QuantParams(tuple(scale.tolist()), (0,) * len(scale), 8, True, axis=0)).astype(np.float64)
    steps = weight / scale[:, None, None, None]
    assert np.abs((codes - steps).sum((1, 2, 3))).max() <= 0.5 + 1e-6
    around = np.arange(9).reshape(3, 3) != 4
    assert np.abs((codes - steps)[:, 0, around]).max() <= 0.5 + 1e-6


def test_the_middle_by_hand() -> None:
    """0.4 of a step eight times is rounded away: 3.2 steps, of which the middle takes three."""
    weight = np.full((1, 1, 3, 3), 0.4, np.float32)
    weight[0, 0, 1, 1] = 100.0
    codes = summing_codes(weight, QuantParams((1.0,), (0,), 8, True, axis=0))
    assert codes[0, 0, 1, 1] == 103 and codes.sum() == 103
