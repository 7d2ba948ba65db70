"""What is chosen is the arg max of an exhaustive scan in NumPy, and every grid is symmetric."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from converter.calibration.observer import collect_statistics
from converter.methods.judging.layer_readers import Reader
from converter.methods.published.easyquant import MULTIPLIERS, Layer, best_reach, best_weight_scales, similarities
from converter.methods.published.symmetric import centred_grid
from converter.options import Options
from converter.plan.records import Plan
from converter.planning.make import make_plan
from converter.quantization.parameters import QuantParams
from converter.sensitivity.context import QuantizedEdge
from converter.targets import TARGETS
from converter.testing.hybrid_plans import hybrid, planned, quality
from converter.testing.sketch import Sketch

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
    readers = [Reader("layer", 0, QuantizedEdge("x", 1.0))]
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


@pytest.mark.parametrize("bits", [4, 5])
def test_scales_take_turns_as_in_a_replica_of_one_layer(bits: int) -> None:
    """Weights given the activation as it is so far, then the activation given those weights; three times at most.

    With one output, since only the ratio of what several weigh would depend on which of some equal scales is taken.
    """
    sketch = Sketch()
    weight = sketch.generator.laplace(size=(6, 1)).astype(np.float32)
    model = sketch.model(sketch.add("MatMul", sketch.input("x", 1, 20, 6), sketch.constant(weight), name="layer"))
    feeds = [{"x": small(seed).left[0].numpy()} for seed in range(4)]

    def look(model: ir.Model) -> Any:
        return collect_statistics(model, feeds, threads=1)

    options = Options(method="easyquant", bits=f"W{bits}A{bits}", placement="all")
    plan = make_plan(model, look(model), look, feeds, (), TARGETS["arm64"], options, frozenset()).plan
    x, w = np.concatenate([f["x"] for f in feeds]).astype(np.float64), weight[:, 0].astype(np.float64)
    y, top = x @ w, 2 ** (bits - 1) - 1
    spans_of_x, spans_of_w = ([float(np.abs(a).max()) / m for m in (1.0, *MULTIPLIERS)] for a in (x, w))
    reach = spans_of_x[0]
    for _ in range(3):
        left = rounded(x, top / reach, bits, -top - 1)
        columns = [rounded(w, top / span, bits, -top) for span in spans_of_w]
        column = columns[int(np.argmax([np.mean([cosine(left[i] @ c, y[i]) for i in range(4)]) for c in columns]))]
        scores = [np.mean([cosine(rounded(x[i], top / span, bits, -top - 1) @ column, y[i]) for i in range(4)]) for span in spans_of_x]
        reach = spans_of_x[int(np.argmax(scores))]
    grid = plan.tensors["x"].params
    assert grid is not None and grid.scale[0] == pytest.approx(reach / top, rel=1e-5)
    codes = np.rint(w / plan.ops["layer"].constants[1].scale[0]).clip(-top, top)
    assert cosine(codes, column) == pytest.approx(1.0, abs=1e-9)  # the same but for a factor
    assert reach < spans_of_x[0]  # the search does find something


def test_all_measured_grids_have_zero_in_the_middle_and_the_result_is_of_use() -> None:
    model = hybrid(activation_bits=6)
    result, minmax = planned(model, "easyquant", "W6A6"), planned(model, "minmax", "W6A6")
    measured = {n: t.params for n, t in result.plan.tensors.items() if t.kind == "measured" and t.params is not None}
    assert len(measured) > 10 and {g.zero_point for g in measured.values()} == {(0,)}
    narrow = [n for n, grid in measured.items() if grid.bits == 6]
    assert any(measured[n] != symmetric(minmax.plan, n) for n in narrow)
    assert quality(model, result) > 15.0


def symmetric(plan: Plan, name: str) -> QuantParams | None:
    """The grid about zero over what min-max saw."""
    grid = plan.tensors[name].params
    return None if grid is None else centred_grid(max(-grid.lowest, grid.highest), grid.bits, grid.signed)
