"""Mean errors count where the loss looks, and as far as the samples agree on them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from converter.methods.q_hyvit.bias_correction import certain_mean, channels_last, places_that_matter
from converter.sensitivity.context import AnalysisContext, stack
from converter.testing.sketch import Sketch, feeds_for, losses_of
from converter.torch_backend.network import network_of, run_samples


def context_with_relu() -> AnalysisContext:
    """Class scores of what a ReLU lets through of a convolution's output."""
    sketch = Sketch()
    kept = sketch.add("Relu", sketch.conv(sketch.input("x", 1, 5, 24, 24), 5, name="conv"))
    model = sketch.model(sketch.add("Flatten", sketch.add("GlobalAveragePool", kept)))
    return AnalysisContext(network_of(model), stack(feeds_for(model)), {}, ("conv",), (), seed=3, losses=losses_of(model))


def test_what_a_relu_cuts_off_has_no_weight() -> None:
    context = context_with_relu()
    places = places_that_matter(context, ["conv"])["conv"]
    step = context.network.steps[0]
    written = run_samples(context.network, context.feed, wanted=step.outputs)[step.outputs[0]]
    there = channels_last(step, written)[:, places.index]
    assert places.weights.shape == (4, 256, 5) and len(set(places.index.tolist())) == 256
    assert bool((there < 0).any())
    assert torch.equal(places.weights > 0, there > 0)


def test_nothing_is_asked_about_no_layer() -> None:
    assert places_that_matter(context_with_relu(), []) == {}


def test_it_does_not_matter_how_many_work_at_it() -> None:
    context = context_with_relu()
    one, two = (places_that_matter(replace(context, workers=n), ["conv"])["conv"] for n in (1, 2))
    assert torch.equal(one.weights, two.weights)


def test_a_mean_counts_as_far_as_the_samples_agree_on_it() -> None:
    """Two samples of two values: the means 3 and 5 agree on 4 with the variance 1; -1 and 1 agree on nothing; 2 and 2 on all."""
    errors = torch.tensor([[[1.0, -3.0, 2.0], [5.0, 1.0, 2.0]], [[4.0, 4.0, 1.0], [6.0, -2.0, 3.0]]])
    expected = torch.tensor([4.0 * (1.0 - 1.0 / 16.0), 0.0, 2.0])
    torch.testing.assert_close(certain_mean(errors, torch.full_like(errors, 0.7)), expected)


def test_places_count_by_their_weight() -> None:
    """Sample by sample the sums are 6 of weight 3 and 2 of weight 1; a place without weight may hold anything."""
    errors = torch.tensor([[[2.0], [2.0], [90.0]], [[2.0], [-50.0], [70.0]]])
    weights = torch.tensor([[[1.0], [2.0], [0.0]], [[1.0], [0.0], [0.0]]])
    assert certain_mean(errors, weights).tolist() == [2.0]
    assert certain_mean(errors, torch.zeros_like(weights)).tolist() == [0.0]


def test_one_sample_says_nothing_about_others() -> None:
    assert certain_mean(torch.tensor([[[1.0], [3.0]]]), torch.ones(1, 2, 1)).tolist() == [0.0]


def test_nor_does_one_that_has_all_the_weight() -> None:
    errors, weights = torch.ones(32, 4, 2), torch.ones(32, 4, 2)
    weights[1:, :, 0] = 0.0
    assert certain_mean(errors, weights).tolist() == [0.0, 1.0]


def test_the_less_evenly_weight_lies_the_less_certain_is_the_mean() -> None:
    """The same three samples, once with equal weights and once with nearly all on the first."""
    errors = torch.tensor([3.0, 1.0, 2.0])[:, None, None]
    even = certain_mean(errors, torch.ones_like(errors))
    uneven = certain_mean(errors, torch.tensor([18.0, 1.0, 1.0])[:, None, None])
    without = (2.85 - 3 / 2, 2.85 - 56 / 19, 2.85 - 55 / 19)
    assert float(even) == pytest.approx(2.0 * (1.0 - 1.0 / 3.0 / 4.0))
    assert float(uneven) == pytest.approx(2.85 * (1.0 - 2 / 3 * sum(d * d for d in without) / 2.85**2))


@given(st.floats(-40, 5), st.integers(0, 20))
def test_small_errors_stay_numbers(exponent: float, seed: int) -> None:
    errors = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(seed)) * 10.0**exponent
    mean = certain_mean(errors, errors.abs())
    assert bool(torch.isfinite(mean).all())
    assert float(mean.abs().max()) <= float(errors.abs().max())


def test_what_differs_from_sample_to_sample_is_no_reason_to_shift_a_bias() -> None:
    noise = torch.randn(8, 16, 500, generator=torch.Generator().manual_seed(0))
    assert float(certain_mean(noise, torch.ones_like(noise)).square().mean()) < 0.5 * float(noise.mean((0, 1)).square().mean())
