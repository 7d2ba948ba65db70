"""The equalization leaves the float function, one scale gives the integers that one per channel gives, and percentiles are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.calibration.observer import values_of
from converter.methods.published.repq_vit import channel_grids, log_scale, variation_factors
from converter.plan.serialization import plan_from_json, plan_to_json
from converter.planning.make import Planned
from converter.runtime.session import open_session, run_session
from converter.testing.hybrid_plans import FEEDS, hybrid, planned, quality
from converter.testing.plans import equalizations_of, quantizers_of
from converter.transforms.equalization.apply import apply_equalizations
from converter.transforms.equalization.find import find_sites


@pytest.fixture(scope="module")
def result() -> tuple[ir.Model, Planned]:
    model = hybrid(spread=30.0, activation_bits=6)
    return model, planned(model, "repq-vit", "W6A6")


@given(st.integers(0, 1000), st.integers(4, 8))
@settings(deadline=None, max_examples=30)
def test_layer_wise_integers_equal_channel_wise_ones(seed: int, bits: int) -> None:
    """Equation 7 on one side, equations 8 to 11 on the other."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((200, 7)) * np.exp(generator.uniform(-2, 2, 7)) + generator.uniform(-1, 1, 7)
    scale, zero_point = channel_grids(x.astype(np.float32), bits)
    wise = np.clip(np.rint(x / scale) + zero_point, 0, 2**bits - 1)
    equalization = variation_factors(scale, zero_point, bits)
    equalized = (x - np.asarray(equalization.shift)) / np.asarray(equalization.scale)
    layer = np.clip(np.rint(equalized / scale.mean()) + np.clip(np.rint(zero_point.mean()), 0, 2**bits - 1), 0, 2**bits - 1)
    places = x / scale - np.floor(x / scale)
    sure = np.abs(places - 0.5) > 1e-6
    np.testing.assert_array_equal(layer[sure], wise[sure])


def test_the_grid_of_a_channel_is_that_of_its_range() -> None:
    x = np.stack([np.linspace(-1.0, 3.0, 5001), np.linspace(2.0, 6.0, 5001)], axis=1).astype(np.float32)
    scale, zero_point = channel_grids(x, 8)
    np.testing.assert_allclose(scale, 4.0 / 255, rtol=0.003)
    np.testing.assert_allclose(zero_point, [64, -127], atol=1)  # outside the codes where a channel's range leaves out zero


def test_a_rare_outlier_is_left_out_where_that_costs_less() -> None:
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (4000, 1)).astype(np.float32)
    x[0] = 3.0
    assert channel_grids(x, 4)[0][0] * 15 < 2.1 < channel_grids(x[:500], 8)[0][0] * 255


def test_the_equalization_leaves_the_float_function(result: tuple[ir.Model, Planned]) -> None:
    model, found = result
    assert len(equalizations_of(found.plan)) == 2 and all(f.shift for f in equalizations_of(found.plan).values())
    equalized = apply_equalizations(model, find_sites(model), equalizations_of(found.plan))
    before, after = (run_session(open_session(ir.to_proto(m), threads=1, optimise=False), FEEDS[9])["logits"] for m in (model, equalized))
    np.testing.assert_allclose(after, before, atol=1e-5 * float(np.abs(before).max()))


def test_one_scale_and_zero_point_remain_behind_each_layer_norm(result: tuple[ir.Model, Planned]) -> None:
    model, found = result
    equalized = apply_equalizations(model, find_sites(model), equalizations_of(found.plan))
    for name in equalizations_of(found.plan):
        grid = found.plan.tensors[name].params
        assert grid is not None and len(grid.scale) == 1
        values = values_of(equalized, FEEDS[:8], [name])[name]
        scale, zero_point = channel_grids(values.reshape(-1, values.shape[-1]), grid.bits)
        assert np.mean(np.isclose(scale, grid.scale[0], rtol=1e-3)) > 0.7
        assert np.mean(zero_point + grid.qmin == grid.zero_point[0]) > 0.7


def test_log_scales_are_percentiles_and_the_best_of_three() -> None:
    sample = np.random.default_rng(0).dirichlet(np.full(16, 0.3), 500).reshape(-1).astype(np.float32)
    for bits in (4, 8):
        errors = {}
        for percentile in (99.9, 99.99, 99.999):
            scale = np.percentile(sample, percentile)
            n = np.rint(-2 * np.log2(np.maximum(sample, 1e-38) / scale))
            errors[float(scale)] = float(np.square(np.where(n < 2**bits, scale * 2.0 ** (-np.maximum(n, 0) / 2), 0.0) - sample).sum())
        assert log_scale(sample, bits) == pytest.approx(min(errors, key=lambda s: errors[s]), rel=1e-6)


def test_the_plan_survives_json_and_is_nearer_to_float_than_ranges(result: tuple[ir.Model, Planned]) -> None:
    model, found = result
    assert {(c.kind, c.bits) for c in quantizers_of(found.plan).values()} == {("log-sqrt2", 6)}
    assert plan_from_json(plan_to_json(found.plan), Path("plan.json")) == found.plan
    assert quality(model, found) > quality(model, planned(model, "minmax", "W6A6")) + 2.0
