"""Factors and ranges against arithmetic written out, and the whole method on a small hybrid network."""

from __future__ import annotations

import numpy as np
import pytest

from converter.grids import Grid, affine_grid, fake_quantize
from converter.methods.fq_vit import FACTORS, omse_range, percentile_range, power_of_two_factors
from converter.methods.q_hyvit_test import hybrid, planned, quality
from converter.observe import TensorStats


def test_channels_of_an_eighth_of_the_range_get_an_eighth_of_the_scale() -> None:
    generator = np.random.default_rng(0)
    x = (generator.uniform(-1.0, 1.0, (4000, 4)) * [0.12, 0.24, 0.49, 1.0]).astype(np.float32)
    assert power_of_two_factors(x, affine_grid(-1.0, 1.0, bits=8, signed=True)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("signed", [True, False])
def test_the_factor_is_the_best_of_four_scans(signed: bool) -> None:
    x = (np.random.default_rng(1).standard_normal((300, 6)) * [0.05, 0.1, 0.3, 0.5, 0.9, 1.0]).astype(np.float32)
    whole = affine_grid(float(x.min()), float(x.max()), bits=8, signed=signed)
    chosen = power_of_two_factors(x, whole)
    for channel in range(6):
        column = x[:, channel]
        grids = [Grid((float(np.float32(whole.scale[0] * f / 8)),), whole.zero_point, 8, signed) for f in FACTORS]
        errors = [float(np.square(fake_quantize(column, g).astype(np.float64) - column).sum()) for g in grids]
        assert errors[chosen[channel]] == pytest.approx(min(errors), rel=1e-4)


def stats(x: np.ndarray) -> TensorStats:
    x = x.astype(np.float32)
    return TensorStats(float(x.min()), float(x.max()), x, x.shape)


def test_omse_is_the_best_of_ninety_shrunken_ranges() -> None:
    x = np.random.default_rng(2).laplace(size=2000)
    low, high = omse_range(stats(x), 4)
    errors = {}
    for i in range(90):
        grid = affine_grid(float(x.min()) * (1 - i / 100), float(x.max()) * (1 - i / 100), bits=4, signed=False)
        errors[i] = float(np.square(fake_quantize(x.astype(np.float32), grid) - x).sum())
    best = min(errors, key=lambda i: errors[i])
    assert best > 0
    assert (low, high) == pytest.approx((float(x.min()) * (1 - best / 100), float(x.max()) * (1 - best / 100)))


def test_the_percentile_leaves_out_one_in_a_hundred_thousand() -> None:
    x = np.linspace(0.0, 100.0, 100001)
    assert percentile_range(stats(x), 8) == pytest.approx((0.001, 99.999), abs=1e-4)


def test_every_layer_norm_reads_powers_of_two_and_attention_has_four_bits() -> None:
    model = hybrid(spread=10.0)
    result = planned(model, "fq-vit")
    kinds = [c.kind for c in result.plan.curves.values()]
    assert sorted(kinds) == ["log-int-softmax", "power-of-two", "power-of-two"]
    for curve in result.plan.curves.values():
        if curve.grid is not None and curve.kind == "power-of-two":
            ratios = np.log2(np.asarray(curve.grid.scale) / min(curve.grid.scale))
            assert set(np.round(ratios, 6)) <= {0.0, 1.0, 2.0, 3.0} and len(set(curve.grid.zero_point)) == 1
        else:
            assert curve.bits == 4 and curve.partner is not None
    assert not any(n.op_type == "Softmax" for n in result.model.graph)
    assert quality(model, result) > 12.0
