"""Factors and ranges against arithmetic written out, and the whole method on a small hybrid network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converter.calibration.observer import TensorStats, collect_statistics
from converter.emit.builder import emit
from converter.errors import UsageError
from converter.methods.names import OBSERVERS, ObserverName
from converter.methods.problem import Problem
from converter.methods.published.fq_vit import FACTORS, choose, omse_range, percentile_range, power_of_two_factors, scores_grid
from converter.options import Options
from converter.planning.make import make_plan
from converter.quantization.parameters import QuantParams, affine_params, fake_quantize
from converter.runtime.session import open_session, run_session
from converter.testing.hybrid_plans import BY_SIZE, hybrid, planned, quality
from converter.testing.plans import quantizers_of
from converter.testing.sketch import Sketch, feeds_for, settings_for
from converter.transforms.nonuniform.marks import quantizer_of
from converter.verify.quality import sqnr
from converter.verify.simulation import simulate


def test_channels_of_an_eighth_of_the_range_get_an_eighth_of_the_scale() -> None:
    generator = np.random.default_rng(0)
    x = (generator.uniform(-1.0, 1.0, (4000, 4)) * [0.12, 0.24, 0.49, 1.0]).astype(np.float32)
    assert power_of_two_factors(x, affine_params(-1.0, 1.0, bits=8, signed=True)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("signed", [True, False])
def test_the_factor_is_the_best_of_four_scans(signed: bool) -> None:
    x = (np.random.default_rng(1).standard_normal((300, 6)) * [0.05, 0.1, 0.3, 0.5, 0.9, 1.0]).astype(np.float32)
    whole = affine_params(float(x.min()), float(x.max()), bits=8, signed=signed)
    chosen = power_of_two_factors(x, whole)
    for channel in range(6):
        column = x[:, channel]
        grids = [QuantParams((float(np.float32(whole.scale[0] * f / 8)),), whole.zero_point, 8, signed) for f in FACTORS]
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
        grid = affine_params(float(x.min()) * (1 - i / 100), float(x.max()) * (1 - i / 100), bits=4, signed=False)
        errors[i] = float(np.square(fake_quantize(x.astype(np.float32), grid) - x).sum())
    best = min(errors, key=lambda i: errors[i])
    assert best > 0
    assert (low, high) == pytest.approx((float(x.min()) * (1 - best / 100), float(x.max()) * (1 - best / 100)))


def test_the_observer_decides_what_ranges_grids_cover() -> None:
    x = np.random.default_rng(2).laplace(size=4000)
    problem = Problem({"x": stats(x)}, {}, {"x": 4}, True)
    whole, percentile, omse = (choose(replace(problem, observer=observer)).tensors["x"] for observer in OBSERVERS)
    assert choose(problem).tensors["x"] == whole == affine_params(float(x.min()), float(x.max()), bits=4, signed=True)
    assert percentile == affine_params(*percentile_range(stats(x), 4), bits=4, signed=True)
    assert omse == affine_params(*omse_range(stats(x), 4), bits=4, signed=True)
    assert whole.scale > percentile.scale > omse.scale


def test_an_observer_is_for_the_method_that_has_the_choice() -> None:
    assert Options(method="fq-vit", observer="omse").observer == "omse"
    with pytest.raises(UsageError, match="no choice of observers"):
        Options(method="mse", observer="omse")
    with pytest.raises(UsageError, match="not known"):
        Options(method="fq-vit", observer="median")  # type: ignore[arg-type]


@pytest.mark.parametrize(("observer", "name"), [(None, "fq-vit"), ("minmax", "fq-vit"), ("omse", "fq-vit omse")])
def test_a_plan_says_how_ranges_were_seen(observer: ObserverName | None, name: str) -> None:
    model = uneven(spread=8.0)
    feeds = feeds_for(model, 2)

    def look(model: ir.Model) -> Any:
        return collect_statistics(model, feeds, threads=1)

    plan = make_plan(model, look(model), look, feeds, (), BY_SIZE, Options(method="fq-vit", observer=observer), frozenset()).plan
    assert plan.method == name


@pytest.mark.parametrize(("low", "high"), [(-10.0, 20.0), (-300.0, 100.0), (-400.0, 10.0), (-20.0, 250.0), (5.0, 30.0)])
def test_the_highest_scores_keep_a_code_each(low: float, high: float) -> None:
    """A softmax looks at differences from the highest score: what lies 255 steps of at most 1 below it gives nothing."""
    grid = scores_grid(low, high, signed=True)
    assert grid.scale[0] <= 1.0 + 1e-6
    scores = np.linspace(max(low, high - 100.0), high, 50).astype(np.float32)
    assert np.abs(fake_quantize(scores, grid) - scores).max() <= grid.scale[0] * 0.5001 + 1e-5


def test_the_percentile_leaves_out_one_in_a_hundred_thousand() -> None:
    x = np.linspace(0.0, 100.0, 100001)
    assert percentile_range(stats(x), 8) == pytest.approx((0.001, 99.999), abs=1e-4)


def test_every_layer_norm_reads_powers_of_two_and_attention_has_four_bits() -> None:
    model = hybrid(spread=10.0)
    result = planned(model, "fq-vit")
    kinds = [c.kind for c in quantizers_of(result.plan).values()]
    assert sorted(kinds) == ["log-int-softmax", "power-of-two", "power-of-two"]
    for quantizer in quantizers_of(result.plan).values():
        if quantizer.params is not None and quantizer.kind == "power-of-two":
            ratios = np.log2(np.asarray(quantizer.params.scale) / min(quantizer.params.scale))
            assert set(np.round(ratios, 6)) <= {0.0, 1.0, 2.0, 3.0} and len(set(quantizer.params.zero_point)) == 1
        else:
            assert quantizer.bits == 4 and quantizer.partner is not None
    assert not any(n.op_type == "Softmax" for n in result.model.graph)
    assert quality(model, result) > 12.0


def uneven(spread: float) -> ir.Model:
    """A stream of tokens whose channels differ in range, twice normalized, twice added to."""
    sketch = Sketch(3)
    loud = np.exp(np.linspace(0.0, -np.log(spread), 16))
    x = sketch.input("x", 1, 20, 16)
    for _ in range(2):
        inner = sketch.add("MatMul", x, sketch.constant(sketch.generator.standard_normal((16, 16)) * 0.25 * loud))
        x = sketch.add("Add", sketch.add("Mul", x, sketch.constant(loud)), inner)
        normal = sketch.add("LayerNormalization", x, sketch.constant(1.0 / loud), sketch.normal(16), axis=-1)
        x = sketch.add("Add", x, sketch.add("MatMul", normal, sketch.constant(sketch.generator.standard_normal((16, 16)) * 0.25 * loud)))
        x = sketch.add("Mul", x, sketch.constant(1.0 / loud))
    return sketch.model(x)


@pytest.mark.parametrize("flags", [{"placement": "all"}, {"full": True}], ids=["all", "full"])
def test_a_residual_stream_in_front_of_a_norm_is_rounded_once_and_goes_on_so(flags: dict[str, Any]) -> None:
    """Otherwise it would lie on a grid per tensor before its channels' factors are looked at, and they would gain nothing."""
    model = uneven(spread=8.0)
    feeds = feeds_for(model, 8)

    def look(model: ir.Model) -> Any:
        return collect_statistics(model, feeds, threads=1)

    result = make_plan(model, look(model), look, feeds, (), BY_SIZE, Options(method="fq-vit", **flags), frozenset())
    makers = {str(o.name): n for n in result.model.graph for o in n.outputs}
    assert len(quantizers_of(result.plan)) == 2
    for name, quantizer in quantizers_of(result.plan).items():
        assert quantizer.params is not None and len(set(quantizer.params.scale)) == len(FACTORS)
        (barrier,) = {node for node, _ in makers[name].outputs[0].uses()}
        assert quantizer_of(barrier) == "power-of-two"
        assert result.plan.ops[str(makers[name].name)].runs == "float"
        assert name not in result.plan.tensors or result.plan.tensors[name].params is None
        rounded = next(n for n in result.model.graph if n.op_type == "DequantizeLinear" and str(n.name).startswith(name))
        assert {node.op_type for node, _ in rounded.outputs[0].uses()} == {"LayerNormalization", "Add"}
    norms = [str(n.name) for n in result.model.graph if n.op_type == "LayerNormalization"]
    assert norms and all(result.plan.ops[name].runs == "float" for name in norms)  # a fake-quantized one would read one scale again
    emitted = ir.to_proto(emit(result.model, result.plan, {}))
    got = run_session(open_session(emitted, threads=1, settings=settings_for(BY_SIZE)), feeds[0])
    assert all(sqnr(value, got[name]) > 60.0 for name, value in simulate(result.model, result.plan, feeds[0]).items())
