"""Candidates are judged exactly, and what is chosen is the best of an exhaustive scan on a small layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.methods.judging.layer_readers import Reader
from converter.methods.judging.layer_search import best_weights, ranked_activations
from converter.methods.judging.output_error import (
    LayerReconstruction,
    activation_errors,
    on_grid,
    reconstruction_of,
    thinned,
    weight_errors,
)
from converter.methods.judging.range_candidates import covering, scale_candidates
from converter.methods.judging.tensor_error import TensorSample
from converter.quantization.parameters import QuantParams, fake_quantize
from converter.sensitivity.context import QuantizedEdge
from converter.sensitivity.layer_samples import LayerSample


def layer(seed: int = 0, spread: float = 1.0) -> LayerReconstruction:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(1, 64, 6, generator=generator) * spread
    left[:, ::7, 0] *= 20.0  # a channel with outliers
    right = torch.randn(1, 6, 5, generator=generator)
    return LayerReconstruction(left, right, left @ right, torch.rand(1, 64, 5, generator=generator))


def error_by_hand(reconstruction: LayerReconstruction, grid: QuantParams) -> float:
    """The same error with NumPy, in float64."""
    left = fake_quantize(reconstruction.left[0].numpy(), grid).astype(np.float64)
    off = left @ reconstruction.right[0].numpy().astype(np.float64) - reconstruction.target[0].numpy()
    return float((reconstruction.fisher[0].numpy() * off**2).sum())


@settings(deadline=None, max_examples=30)
@given(st.integers(4, 8), st.booleans(), st.integers(0, 20))
def test_errors_of_all_candidates_are_those_of_one_at_a_time(bits: int, signed: bool, seed: int) -> None:
    reconstruction = layer(seed)
    grids = scale_candidates(float(reconstruction.left.min()), float(reconstruction.left.max()), bits, signed)
    errors = activation_errors(reconstruction, 0, reconstruction.right, grids)
    assert len(grids) == 200
    for i in (0, 17, 99, 150, 199):
        assert float(errors[i]) == pytest.approx(error_by_hand(reconstruction, grids[i]), rel=1e-3, abs=1e-6)


def test_the_second_operand_of_a_product_is_judged_too() -> None:
    reconstruction = layer()
    grid = covering(-3.0, 3.0, 6, True)
    expected = (reconstruction.fisher * (reconstruction.left @ on_grid(reconstruction.right, grid) - reconstruction.target).square()).sum()
    assert float(activation_errors(reconstruction, 1, reconstruction.left, [grid])[0]) == pytest.approx(float(expected), rel=1e-5)


def test_a_factor_between_tensor_and_reader_scales_the_grid() -> None:
    reconstruction = layer()
    grid = covering(-10.0, 10.0, 6, True)
    assert activation_errors(reconstruction, 0, reconstruction.right, [grid], 0.5) == activation_errors(
        reconstruction, 0, reconstruction.right, [grid.rescaled(0.5)]
    )


@given(st.floats(-50, 0), st.floats(0, 50), st.integers(4, 8), st.booleans())
def test_every_candidate_is_a_grid_of_its_container(low: float, high: float, bits: int, signed: bool) -> None:
    for grid in scale_candidates(low, high, bits, signed):
        assert grid.qmin <= grid.zero_point[0] <= grid.qmax
        assert grid.lowest <= 0.0 <= grid.highest


def test_candidates_reach_from_a_hundredth_to_a_fifth_more_in_both_schemes() -> None:
    grids = scale_candidates(-1.0, 3.0, 8, True)
    scales = np.asarray([g.scale[0] for g in grids])
    assert scales[:100] == pytest.approx(np.linspace(0.01, 1.2, 100) * 4.0 / 255)
    assert scales[100:] == pytest.approx(np.linspace(0.01, 1.2, 100) * 3.0 / 127)
    assert {g.zero_point for g in grids[100:]} == {(0,)} and {g.zero_point for g in grids[:100]} == {(-64,)}


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("seed", range(3))
def test_the_choice_is_no_worse_than_an_exhaustive_scan(bits: int, seed: int) -> None:
    reconstruction = layer(seed)
    low, high = float(reconstruction.left.min()), float(reconstruction.left.max())
    readers = [Reader("layer", 0, QuantizedEdge("x", 1.0))]
    chosen = ranked_activations(
        readers, {"layer": reconstruction}, {("layer", 1): reconstruction.right}, covering(low, high, bits, True), low, high
    )[0]
    scan = min(error_by_hand(reconstruction, grid) for grid in scale_candidates(low, high, bits, True))
    assert error_by_hand(reconstruction, chosen) <= scan * 1.0001


def test_a_tensor_that_two_layers_read_is_judged_by_both() -> None:
    one, other = layer(0), layer(0)
    heavy = LayerReconstruction(other.left * 0.01, other.right, other.target * 0.01, other.fisher * 1e9)
    reconstructions = {"one": one, "heavy": heavy}
    readers = [Reader("one", 0, QuantizedEdge("x", 1.0)), Reader("heavy", 0, QuantizedEdge("x", 1.0))]
    others = {("one", 1): one.right, ("heavy", 1): heavy.right}
    low, high = float(one.left.min()), float(one.left.max())
    start = covering(low, high, 6, True)
    alone = ranked_activations(readers[:1], reconstructions, others, start, low, high)[0]
    both = ranked_activations(readers, reconstructions, others, start, low, high)[0]
    assert both.scale[0] < 0.3 * alone.scale[0]


def test_weights_get_the_best_factor_of_each_output_channel() -> None:
    reconstruction = layer(3)
    left = on_grid(reconstruction.left, covering(-8.0, 8.0, 6, True))
    scales, rounded = best_weights(reconstruction, left, 4)
    errors = weight_errors(reconstruction, left, rounded)
    for factor in np.linspace(0.4, 1.0, 31):
        scale = reconstruction.right.abs().amax(1, keepdim=True) * float(factor) / 7
        other = weight_errors(reconstruction, left, torch.clamp(torch.round(reconstruction.right / scale), -7, 7) * scale)
        assert bool((errors <= other * (1 + 1e-6)).all())
    codes = rounded / scales[:, None]
    torch.testing.assert_close(codes, codes.round(), atol=1e-4, rtol=0)


def test_sampled_rows_stand_for_all_places() -> None:
    sample = LayerSample("a", ("x",), torch.randn(1, 32, 4), torch.randn(1, 4, 3), torch.ones(1, 32, 3), 320)
    reconstruction = reconstruction_of(sample)
    assert float(reconstruction.fisher.sum()) == pytest.approx(320 * 3)
    assert float(thinned(reconstruction, 4).fisher.sum()) == pytest.approx(320 * 3)


def test_a_grid_that_cuts_off_what_the_sampled_places_did_not_show_is_kept_out() -> None:
    """All rows are small; elsewhere the tensor holds large numbers."""
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(1, 64, 8, generator=generator), torch.randn(1, 8, 4, generator=generator)
    reconstruction = LayerReconstruction(left, right, left @ right, torch.ones(1, 64, 4))
    reader = Reader("layer", 0, QuantizedEdge("x", 1.0))
    everywhere = torch.cat([left.reshape(1, -1), torch.full((1, 16), 40.0)], 1)
    tensor_sample = TensorSample(torch.arange(everywhere.shape[1]), everywhere, torch.ones_like(everywhere))
    start, low, high = covering(-4.0, 40.0, 8, True), -4.0, 40.0

    def reach(guard: TensorSample | None) -> float:
        grids = ranked_activations([reader], {"layer": reconstruction}, {("layer", 1): right}, start, low, high, guard=guard)
        return grids[0].highest

    assert reach(None) < 6.0
    assert reach(tensor_sample) > 35.0
