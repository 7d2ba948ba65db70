"""Weights that make up for inputs that are off, as far as samples agree on how."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.methods.q_hyvit.weight_correction import corrected_weights

Tensor = torch.Tensor


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(real: Tensor, coded: Tensor, matrix: Tensor, changed: Tensor) -> float:
    return float((real.flatten(1, 2) @ matrix - coded.flatten(1, 2) @ changed).square().sum())


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 50), st.lists(st.floats(0.5, 2.0), min_size=6, max_size=6))
def test_channels_that_come_in_at_another_size_are_put_right(seed: int, sizes: list[float]) -> None:
    real, matrix = drawn(seed, 1, 8, 100, 6), drawn(seed + 1, 1, 6, 5)
    coded = real * torch.tensor(sizes)
    changed = corrected_weights(real, coded, matrix)
    assert error(real, coded, matrix, changed) <= 1e-4 * error(real, coded, matrix, matrix) + 1e-6
    assert torch.allclose(changed, matrix / torch.tensor(sizes)[:, None], atol=0.05)


def test_one_number_by_hand() -> None:
    """Inputs 1, 2 come in as 2, 2.5 in both samples, so that rows miss -3 and -1.5, of which the smaller is the lower median.

    Least squares with a share of 0.001 held back, the least there is, as both samples say the same.
    """
    real, coded = (torch.tensor(x).reshape(1, 1, 2, 1).expand(1, 2, 2, 1) for x in ([1.0, 2.0], [2.0, 2.5]))
    changed = corrected_weights(real, coded, torch.tensor([[[3.0]]]))
    usual = 9 * 1.5**2
    first, second = usual / (usual + 3.0**2), usual / (usual + 1.5**2)
    power, both = first * 4.0 + second * 6.25, first * 2.0 * -3.0 + second * 2.5 * -1.5
    assert float(changed) == pytest.approx(3.0 + both / (power * 1.001), rel=1e-6)


def test_noise_makes_weights_smaller() -> None:
    """The best linear estimate of a signal of variance 1 under noise of variance 1/4 is 1 / 1.25 of what comes in.

    Rows with much noise count less, so that it does not come down quite so far: under a weight of 1 / (1 + n^2 / m), with m nine
    times the median of n^2, the share held back is E[w n^2] / (E[w] + E[w n^2]).
    """
    real = drawn(0, 1, 8, 4000, 1)
    coded = real + 0.5 * drawn(1, 1, 8, 4000, 1)
    changed = corrected_weights(real, coded, torch.ones(1, 1, 1))
    n = np.linspace(-5, 5, 100001)
    density, weight = np.exp(-n * n / 2) / math.sqrt(2 * math.pi) * 1e-4, 1 / (1 + n * n / (9 * 0.6745**2))
    noise = 0.25 * (density * weight * n * n).sum()
    assert float(changed) == pytest.approx(1 - noise / ((density * weight).sum() + noise), abs=0.01)


def test_a_row_of_which_much_is_cut_off_does_not_decide_for_all() -> None:
    """Two inputs of four hundred are cut to a twentieth, the others come in one per cent too large."""
    real = drawn(0, 1, 4, 100, 1)
    real[0, ::2, 0] = 100.0
    coded = real.clamp(max=5.0) * 1.01
    changed = corrected_weights(real, coded, torch.ones(1, 1, 1))
    plain = float((real * coded).sum() / coded.square().sum())
    assert plain > 2.0
    assert 0.98 < float(changed) < 1.1


def test_what_nothing_in_the_inputs_tells_is_left_alone() -> None:
    """An input that hides what is missing: any change would be fitted to the samples and wrong for others."""
    lost = drawn(2, 1, 4, 3, 40)
    real = torch.cat([lost, drawn(3, 1, 4, 3, 40)], 3)
    coded = torch.cat([torch.zeros_like(lost), real[..., 40:]], 3)
    matrix = drawn(4, 1, 80, 3)
    assert torch.equal(corrected_weights(real, coded, matrix), matrix)


def test_an_input_that_comes_in_too_high_everywhere_is_made_up_for_as_far_as_the_others_carry_a_mean() -> None:
    """There is no constant among the inputs: weights make up for an offset only through inputs that are not zero on average."""
    real, matrix = drawn(0, 1, 4, 50, 6) + 3.0, drawn(1, 1, 6, 5)
    changed = corrected_weights(real, real + 0.5, matrix)
    assert error(real, real + 0.5, matrix, changed) < 0.2 * error(real, real + 0.5, matrix, matrix)


def test_groups_are_put_right_by_themselves() -> None:
    real, matrix = drawn(0, 2, 4, 100, 3), drawn(1, 2, 3, 1)
    coded = torch.cat([real[:1] * 2, real[1:]])
    changed = corrected_weights(real, coded, matrix)
    assert torch.allclose(changed[0], matrix[0] / 2, atol=0.01) and torch.allclose(changed[1], matrix[1], atol=1e-5)


def test_inputs_that_are_right_change_nothing() -> None:
    real, matrix = drawn(0, 1, 4, 50, 6), drawn(1, 1, 6, 5)
    assert torch.equal(corrected_weights(real, real.clone(), matrix), matrix)


def test_a_single_sample_says_nothing_of_others() -> None:
    real, matrix = drawn(0, 1, 1, 50, 6), drawn(1, 1, 6, 5)
    assert torch.equal(corrected_weights(real, 2 * real, matrix), matrix)


def test_dead_inputs_are_no_obstacle() -> None:
    real, matrix = drawn(0, 1, 4, 50, 6), drawn(1, 1, 6, 5)
    real[..., 2] = 0.0
    assert bool(torch.isfinite(corrected_weights(real, 2 * real, matrix)).all())
    assert torch.equal(corrected_weights(real, 0 * real, matrix), matrix)
