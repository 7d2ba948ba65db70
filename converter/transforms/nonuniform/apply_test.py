"""Grids that are not uniform, as written into a model and run by ONNX Runtime, against arithmetic in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.quantization.parameters import QuantParams, fake_quantize
from converter.runtime.session import open_session, run_session
from converter.testing.sketch import Sketch, emitted, feeds_for, parity, plan_for
from converter.transforms.nonuniform.apply import apply_quantizers
from converter.transforms.nonuniform.find import find_quantizer_sites
from converter.transforms.nonuniform.quantizer import NonuniformQuantizer, halves
from converter.verify.simulation import simulate

Array = npt.NDArray[Any]


def attention(*, moved: bool = False) -> tuple[ir.Model, str]:
    """softmax(scores) v, and the name of what the product reads."""
    sketch = Sketch()
    weights = sketch.add("Softmax", sketch.input("scores", 1, 2, 6, 6), name="softmax", axis=-1)
    if moved:
        weights = sketch.add("Transpose", weights, perm=[0, 1, 3, 2], name="moved")
    return sketch.model(sketch.add("MatMul", weights, sketch.input("v", 1, 2, 6, 4), name="mix")), weights


def runs(model: ir.Model, feed: dict[str, Array]) -> Array:
    (value,) = run_session(open_session(ir.to_proto(model), threads=1), feed).values()
    return value


def numbers_on(kind: Any, bits: int, scale: float, x: Array) -> Array:
    """Numbers on a logarithmic grid, by the runtime: attention with the identity as value."""
    rows = x.reshape(1, 1, -1, 1).astype(np.float32)
    sketch = Sketch()
    given_ = sketch.input("x", 1, 1, x.size, 1)
    model = sketch.model(sketch.add("MatMul", sketch.add("Softmax", given_, axis=-1, name="softmax"), sketch.input("v", 1, 1, 1, 1)))
    changed = apply_quantizers(model, find_quantizer_sites(model), {"softmax.0": NonuniformQuantizer(kind, bits, scale)})
    (softmax,) = [n for n in changed.graph if n.op_type == "Softmax"]
    ir.convenience.replace_all_uses_with(softmax.outputs[0], changed.graph.inputs[0])
    return runs(changed, {"x": rows, "v": np.ones((1, 1, 1, 1), np.float32)}).reshape(-1)


@pytest.mark.parametrize(("kind", "base"), [("log2", 2.0), ("log-sqrt2", 2.0**0.5)])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_all_sixteen_codes_equal_their_closed_form(kind: str, base: float, scale: float) -> None:
    codes = np.arange(16)
    exact = scale * base ** -codes.astype(np.float64)
    got = numbers_on(kind, 4, scale, np.asarray([exact * base**0.4, exact, exact * base**-0.4]).reshape(-1)).reshape(3, 16)
    np.testing.assert_allclose(got, np.broadcast_to(exact, (3, 16)), rtol=1e-6)


@given(st.floats(2.0**-40, 1.0, width=32), st.integers(3, 8), st.sampled_from(["log2", "log-sqrt2"]))
@settings(deadline=None, max_examples=20)
def test_any_number_goes_to_the_nearest_logarithm_or_to_zero(x: float, bits: int, kind: str) -> None:
    steps = 1.0 if kind == "log2" else 2.0
    place = -steps * np.log2(np.float64(x))
    if abs(place - np.floor(place) - 0.5) < 1e-3:
        return  # at the border either is right
    wanted = 2.0 ** (-np.rint(place) / steps) if np.rint(place) < 2**bits else 0.0
    assert numbers_on(kind, bits, 1.0, np.asarray([x]))[0] == pytest.approx(wanted, rel=1e-6)


def test_zero_is_next_to_nothing() -> None:
    assert numbers_on("log-sqrt2", 8, 1.0, np.zeros(1))[0] <= 2.0**-120
    assert numbers_on("log2", 4, 1.0, np.zeros(1))[0] == 0.0


@pytest.mark.parametrize("moved", [False, True])
def test_the_partner_lies_on_its_grid_and_the_product_stays_float(moved: bool) -> None:
    model, name = attention(moved=moved)
    feed = feeds_for(model, 1)[0]
    partner = QuantParams((0.25,), (1,), 4, True)
    changed = apply_quantizers(model, find_quantizer_sites(model), {name: NonuniformQuantizer("log2", 4, partner=partner)})
    weights = np.exp(feed["scores"] - feed["scores"].max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    weights = np.swapaxes(weights, -1, -2) if moved else weights
    wanted = 2.0 ** -np.clip(np.rint(-np.log2(weights)), 0, 15) @ fake_quantize(feed["v"], partner)
    np.testing.assert_allclose(runs(changed, feed), wanted, atol=1e-5)
    planned = plan_for(changed)
    assert planned.plan.ops["mix"].runs == "float" and "logarithmic" in planned.plan.ops["mix"].reason
    assert parity(planned, emitted(planned)) > 100.0


@pytest.mark.parametrize("kind", ["log2", "log-sqrt2", "twin"])
def test_where_everything_is_quantized_no_grid_is_laid_over_one_that_is_not_uniform(kind: Any) -> None:
    model, name = attention()
    quantizer = NonuniformQuantizer(kind, 4, bound=0.25 if kind == "twin" else 0.0)
    planned = plan_for(apply_quantizers(model, find_quantizer_sites(model), {name: quantizer}), full=True)
    ops, tensors = planned.plan.ops, planned.plan.tensors
    assert ops["softmax"].runs == "float" and tensors["softmax.0"].params is None
    assert ops["mix"].runs == ("integer" if kind == "twin" else "float")
    assert parity(planned, emitted(planned)) > 40.0


def integer_softmax(x: Array, grid: QuantParams, bits: int) -> Array:
    """Log-Int-Softmax in Python integers, one number at a time (FQ-ViT, section 3.4; I-BERT, algorithm 2)."""
    step, (b, c) = float(np.float32(grid.scale[0])), (0.96963238 / 0.35815147, 1.0 / 0.35815147)
    codes = [int(np.clip(np.rint(np.float32(v) / np.float32(step)) + grid.zero_point[0], grid.qmin, grid.qmax)) for v in x]
    ln2 = int(np.floor(-0.6931 / step))
    exponentials = []
    for code in codes:
        centred = max(code - max(codes), 30 * ln2)
        octave, rest = centred // ln2, centred - (centred // ln2) * ln2
        polynomial = rest * (rest + int(np.floor(b / step))) + int(np.floor(c / step**2))
        exponentials.append(max(polynomial << (30 - octave), 0))
    result = []
    for exponential in exponentials:
        ratio = int(np.rint(sum(exponentials) / exponential)) if exponential else 2**60
        floor = ratio.bit_length() - 1
        rounded = floor + (ratio - 2**floor >= 2 ** (floor - 1))
        result.append(2.0**-rounded if rounded < 2**bits else 0.0)
    return np.asarray(result)


@pytest.mark.parametrize("scale", [0.004, 0.05, 0.5])
def test_the_softmax_by_integer_exponentials_equals_that_of_python_integers(scale: float) -> None:
    model, name = attention()
    feed = feeds_for(model, 1)[0]
    feed["scores"] = (feed["scores"] * 20.0 * scale).astype(np.float32)
    feed["v"] = np.broadcast_to(np.eye(6, 4, dtype=np.float32), (1, 2, 6, 4)).copy()
    grid = QuantParams((scale,), (5,), 8, True)
    changed = apply_quantizers(model, find_quantizer_sites(model), {name: NonuniformQuantizer("log-int-softmax", 4, params=grid)})
    wanted = np.stack([integer_softmax(row, grid, 4) for row in feed["scores"].reshape(-1, 6)]).reshape(1, 2, 6, 6)
    np.testing.assert_array_equal(runs(changed, feed), wanted[..., :4].astype(np.float32))
    assert not any(node.op_type == "Softmax" for node in changed.graph)
    true = np.exp(feed["scores"]) / np.exp(feed["scores"]).sum(-1, keepdims=True)
    large = true > 0.05
    assert scale > 0.1 or (np.abs(np.log2(wanted[large] / true[large])) < 0.75).all()


def layers(sketch: Sketch, x: str) -> dict[str, Callable[[], str]]:
    return {
        "conv": lambda: sketch.conv(x, 6, size=1, outputs=4),
        "linear": lambda: sketch.add("MatMul", x, sketch.normal(6, 5)),
        "gemm": lambda: sketch.add("Gemm", x, sketch.normal(6, 5), sketch.normal(5)),
    }


@pytest.mark.parametrize("kind", ["conv", "linear", "gemm"])
def test_a_twin_grid_is_exact_in_float_and_runs_in_integer_on_both_halves(kind: str) -> None:
    sketch = Sketch()
    shape = {"conv": (1, 6, 5, 5), "linear": (1, 7, 6), "gemm": (7, 6)}[kind]
    x = sketch.add("Gelu", sketch.input("x", *shape), name="gelu")
    model = sketch.model(layers(sketch, x)[kind]())
    feed = feeds_for(model, 1)[0]
    changed = apply_quantizers(model, find_quantizer_sites(model), {"gelu.0": NonuniformQuantizer("twin", bound=0.0)})
    np.testing.assert_allclose(runs(changed, feed), runs(model, feed), atol=1e-5)
    planned = plan_for(changed)
    integer = [op for op in planned.plan.ops.values() if op.runs == "integer" and 1 in op.constants]
    assert len(integer) == 2
    assert {planned.plan.tensors[half].kind for half in halves("gelu.0")} == {"measured"}
    assert parity(planned, emitted(planned)) > 60.0


@pytest.mark.parametrize("bound", [0.25, 2.0**-4])
def test_a_twin_grid_splits_attention_at_its_bound(bound: float) -> None:
    model, name = attention()
    feed = feeds_for(model, 1)[0]
    changed = apply_quantizers(model, find_quantizer_sites(model), {name: NonuniformQuantizer("twin", bound=bound)})
    np.testing.assert_allclose(runs(changed, feed), runs(model, feed), atol=1e-6)
    values = {str(v.name): v for node in changed.graph for v in node.outputs}
    changed.graph.outputs.extend(values[half] for half in halves(name))
    _, low, high = run_session(open_session(ir.to_proto(changed), threads=1), feed).values()
    assert low.max() < bound <= high[high > 0].min() and ((low == 0) | (high == 0)).all()


def test_powers_of_two_stand_in_front_of_a_float_layer_norm() -> None:
    sketch = Sketch()
    x = sketch.add("Erf", sketch.input("x", 1, 7, 6), name="erf")
    model = sketch.model(sketch.add("LayerNormalization", x, sketch.normal(6), sketch.normal(6), axis=-1, name="norm"))
    feed = feeds_for(model, 1)[0]
    grid = QuantParams(tuple(0.02 * 2.0**a for a in (0, 1, 2, 3, 0, 1)), (3,) * 6, 6, True, 2)
    changed = apply_quantizers(model, find_quantizer_sites(model), {"erf.0": NonuniformQuantizer("power-of-two", params=grid)})
    (q,) = [n for n in changed.graph if n.op_type == "QuantizeLinear"]
    assert q.outputs[0].dtype == ir.DataType.INT8
    values = {str(v.name): v for node in model.graph for v in node.outputs}
    model.graph.outputs.append(values["erf.0"])
    plain = run_session(open_session(ir.to_proto(model), threads=1), feed)
    normal = fake_quantize(plain["erf.0"], grid)
    normal = (normal - normal.mean(-1, keepdims=True)) / np.sqrt(normal.var(-1, keepdims=True) + 1e-5)
    gamma, beta = (i.const_value.numpy() for i in list(model.graph.initializers.values())[:2] if i.const_value is not None)
    np.testing.assert_allclose(runs(changed, feed), normal * gamma + beta, atol=1e-5)
    planned = plan_for(changed)
    assert parity(planned, emitted(planned)) > 60.0
    np.testing.assert_array_equal(simulate(changed, None, feed)["norm.0"].shape, (1, 7, 6))


@pytest.mark.parametrize(
    ("tensor", "quantizer", "complaint"),
    [
        ("nowhere", NonuniformQuantizer("log2"), "no place"),
        ("softmax.0", NonuniformQuantizer("power-of-two", params=QuantParams((1.0,), (0,), axis=1)), "cannot stand there"),
        ("softmax.0", NonuniformQuantizer("log2", 9), "9 bits"),
        ("softmax.0", NonuniformQuantizer("log2", scale=0.0), "of use"),
        ("softmax.0", NonuniformQuantizer("log-int-softmax"), "one scale"),
        ("softmax.0", NonuniformQuantizer("twin", partner=QuantParams((1.0,), (0,))), "partner"),
    ],
)
def test_what_does_not_fit_is_refused(tensor: str, quantizer: NonuniformQuantizer, complaint: str) -> None:
    model, _ = attention()
    with pytest.raises(ValueError, match=complaint):
        apply_quantizers(model, find_quantizer_sites(model), {tensor: quantizer})


def test_an_excluded_reader_is_no_quantizer_site() -> None:
    model, name = attention()
    assert list(find_quantizer_sites(model)) == [name] and not find_quantizer_sites(model, {"mix"})


@pytest.mark.parametrize(("axis", "views", "found"), [(-1, 1, 1), (3, 1, 1), (-2, 1, 0), (-1, 2, 0)])
def test_attention_is_a_softmax_over_the_last_axis_that_one_product_reads(axis: int, views: int, found: int) -> None:
    """Integer exponentials are summed along that axis, and a softmax cannot be written anew for each of two readers."""
    sketch = Sketch()
    scores, value = sketch.input("scores", 1, 2, 4, 4), sketch.input("value", 1, 2, 4, 4)
    softmax = sketch.add("Softmax", scores, axis=axis)
    products = [sketch.add("MatMul", softmax, value)]
    if views == 2:
        products.append(sketch.add("MatMul", sketch.add("Transpose", softmax, perm=[0, 1, 3, 2]), value))
    quantizer_sites = find_quantizer_sites(sketch.model(*products))
    assert len([quantizer_site for quantizer_site in quantizer_sites.values() if quantizer_site.kind == "attention"]) == found
