"""What is chosen is the arg max of an exhaustive scan in NumPy, and every grid is symmetric."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from converter.grids import Grid
from converter.methods.easyquant import MULTIPLIERS, Layer, best_reach, best_weight_scales, similarities
from converter.methods.layer_readers import Reader
from converter.methods.q_hyvit_test import hybrid, planned, quality
from converter.methods.symmetric import centred_grid
from converter.plan import Plan
from converter.study import Reading

BITS = pytest.mark.parametrize("bits", [4, 8])


def small(seed: int, samples: int = 3) -> Layer:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(samples, 1, 20, 6, generator=generator)
    left[:, :, ::7, 0] *= 15.0  # outliers, so that the largest magnitude is not the best reach
    right = torch.randn(1, 1, 6, 5, generator=generator)
    return Layer(left, right, left @ right)


def rounded(x: np.ndarray, multiplier: float, bits: int, lowest: int) -> np.ndarray:
    """Q(x, S) = clip(round(S x)) / S (section 3.1)."""
    return np.clip(np.rint(x * multiplier), lowest, 2 ** (bits - 1) - 1) / multiplier


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


@BITS
@pytest.mark.parametrize("seed", range(3))
def test_the_scale_of_an_activation_is_the_arg_max_of_a_scan(bits: int, seed: int) -> None:
    layer = small(seed)
    x, w, y = (t.numpy().astype(np.float64) for t in (layer.left, layer.right, layer.target))
    largest, top = float(np.abs(x).max()), 2 ** (bits - 1) - 1
    readers = [Reader("layer", 0, Reading("x", 1.0))]
    reach = best_reach(readers, {"layer": layer}, {("layer", 0): layer.right}, largest, bits)

    def score(multiplier: float) -> float:
        got = rounded(x, multiplier * top / largest, bits, -top - 1) @ w
        return float(np.mean([cosine(got[i], y[i]) for i in range(3)]))

    scan = {m: score(m) for m in MULTIPLIERS}
    assert score(largest / reach) == pytest.approx(max(scan.values()), abs=1e-6)
    if bits == 4 and seed == 0:
        assert max(scan.values()) > score(1.0) + 1e-3  # the search does find something


@BITS
def test_each_channel_of_the_weights_gets_the_arg_max_of_its_own_scan(bits: int) -> None:
    layer = small(7)
    w, y = (t.numpy().astype(np.float64) for t in (layer.right, layer.target))
    x, top = layer.left.numpy().astype(np.float64), 2 ** (bits - 1) - 1
    scales, on_grids = best_weight_scales(layer, layer.left, bits)
    for channel in range(5):
        column, largest = w[0, 0, :, channel], float(np.abs(w[0, 0, :, channel]).max())

        def score(weights: np.ndarray, channel: int = channel) -> float:
            return float(np.mean([cosine(x[i, 0] @ weights, y[i, 0, :, channel]) for i in range(3)]))

        scan = max(score(rounded(column, m * top / largest, bits, -top)) for m in MULTIPLIERS)
        chosen = rounded(column, 1.0 / float(scales[0, channel]), bits, -top)
        assert score(chosen) == pytest.approx(scan, abs=1e-6)
        np.testing.assert_allclose(on_grids[0, 0, :, channel].numpy(), chosen, rtol=1e-5)


def test_nothing_is_like_nothing() -> None:
    assert similarities(torch.zeros(2, 4), torch.ones(2, 4), (-1,)).tolist() == [0.0, 0.0]


def test_all_measured_grids_have_zero_in_the_middle_and_the_result_is_of_use() -> None:
    model = hybrid(activation_bits=6)
    result, minmax = planned(model, "easyquant", "W6A6"), planned(model, "minmax", "W6A6")
    measured = {n: t.grid for n, t in result.plan.tensors.items() if t.fate == "measured" and t.grid is not None}
    assert len(measured) > 10 and {g.zero_point for g in measured.values()} == {(0,)}
    narrow = [n for n, grid in measured.items() if grid.bits == 6]
    assert any(measured[n] != symmetric(minmax.plan, n) for n in narrow)
    assert quality(model, result) > 15.0


def symmetric(plan: Plan, name: str) -> Grid | None:
    """The grid about zero over what min-max saw."""
    grid = plan.tensors[name].grid
    return None if grid is None else centred_grid(max(-grid.lowest, grid.highest), grid.bits, grid.signed)
