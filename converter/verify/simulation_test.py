from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from converter.canonicalise import canonicalise
from converter.quantization.parameters import QuantParams, affine_params, fake_quantize
from converter.runtime.session import open_session, run_session
from converter.testing.models import hybrid_model
from converter.testing.sketch import TARGET_NAMES, Sketch, emitted, feeds_for, parity, plan_for, settings_for
from converter.torch_backend.ops import UnknownOperatorError
from converter.verify.quality import sqnr
from converter.verify.simulation import fake_quantize_tensor, simulate, simulate_all

targets = pytest.mark.parametrize("target", TARGET_NAMES)


def tokens() -> ir.Model:
    """LayerNorm, attention with a Softmax and a GELU between integer layers."""
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 16, 6, 6), 16)
    x = sketch.add("Transpose", sketch.add("Reshape", x, sketch.constant([1, 16, 36], np.int64)), perm=[0, 2, 1])
    y = sketch.add("LayerNormalization", x, sketch.normal(16), sketch.normal(16))
    q, k, v = (sketch.add("MatMul", y, sketch.normal(16, 16, scale=0.25)) for _ in range(3))
    scores = sketch.add("Softmax", sketch.add("MatMul", q, sketch.add("Transpose", k, perm=[0, 2, 1])))
    x = sketch.add("Add", x, sketch.add("MatMul", scores, v))
    y = sketch.add("Gelu", sketch.add("MatMul", x, sketch.normal(16, 32, scale=0.25)))
    return sketch.model(sketch.add("Add", x, sketch.add("MatMul", y, sketch.normal(32, 16, scale=0.2))))


@targets
@pytest.mark.parametrize("cheapest", [True, False])
def test_float_parts_leave_more_than_45_db(target: str, cheapest: bool) -> None:
    planned = plan_for(tokens(), target, cheapest=cheapest)
    assert parity(planned, emitted(planned), samples=8) > 45.0


@targets
@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_a_hybrid_network_agrees_with_the_runtime(target: str, method: str) -> None:
    """Float operators by the runtime's kernels, integer ones by the simulation: what differs is the integer arithmetic."""
    source = hybrid_model()
    generator = np.random.default_rng(0)
    feeds = [{"image": generator.random((1, 3, 32, 32), dtype=np.float32)} for _ in range(8)]
    model = canonicalise(source, feeds[:1]).model
    planned = plan_for(model, target, method=method, cheapest=True, feeds=feeds[:4])
    session = open_session(emitted(planned), threads=1, settings=settings_for(planned.target))
    pairs = [(simulate(model, planned.plan, f, {})["logits"], run_session(session, f)["logits"]) for f in feeds[4:]]
    assert sqnr(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])) > 60.0
    floats = open_session(source, threads=1)
    wanted = np.stack([run_session(floats, f)["logits"] for f in feeds[4:]])
    assert sqnr(wanted, np.stack([b for _, b in pairs])) > 15.0


def test_without_a_plan_the_model_is_run_in_float() -> None:
    model = tokens()
    (feed,) = feeds_for(model, 1)
    (expected,) = run_session(open_session(ir.to_proto(model), threads=1, optimise=False), feed).values()
    (got,) = simulate(model, None, feed).values()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_convolution_by_hand() -> None:
    """One weight of 2.0, one bias of 1.0, one step of each grid known."""
    sketch = Sketch()
    x = sketch.add("Conv", sketch.input("x", 1, 1, 1, 3), sketch.constant([[[[2.0]]]]), sketch.constant([1.0]), name="conv")
    model = sketch.model(x)
    feed = {"x": np.asarray([[[[-1.0, 0.3, 2.0]]]], np.float32)}
    planned = plan_for(model, feeds=[feed])
    (got,) = simulate(model, planned.plan, feed).values()
    x_step, y_step = 3 / 255, 6 / 255  # ranges -1..2 and -1..5
    codes = np.rint(np.asarray([-1.0, 0.3, 2.0]) / x_step)
    exact = codes * x_step * 2.0 + 1.0
    np.testing.assert_allclose(got.reshape(-1), np.rint(exact / y_step) * y_step, atol=1e-5)


def test_rounding_in_torch_equals_rounding_in_numpy() -> None:
    x = np.linspace(-3, 3, 20001, dtype=np.float32)
    for grid in (
        affine_params(-1.3, 2.1, bits=8, signed=True),
        affine_params(0, 2.1, bits=5, signed=False),
        QuantParams((0.5,), (3,), 8, False),
    ):
        np.testing.assert_array_equal(fake_quantize_tensor(torch.from_numpy(x), grid).numpy(), fake_quantize(x, grid))


def test_an_operator_without_a_rule_is_named() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.add("Erf", sketch.add("Bernoulli", sketch.input("x", 3))))
    with pytest.raises(UnknownOperatorError, match="Bernoulli"):
        simulate(model, None, feeds_for(model, 1)[0])


def test_what_a_float_operator_reads_lies_on_the_grid() -> None:
    sketch = Sketch()
    x = sketch.add("Sigmoid", sketch.input("x", 50), name="sigmoid")
    model = sketch.model(sketch.add("Abs", x))
    (got,) = simulate(model, plan_for(model).plan, feeds_for(model, 1)[0]).values()
    np.testing.assert_array_equal(got * 256, np.rint(got * 256))


def test_an_output_that_no_node_makes_is_known_all_the_same() -> None:
    sketch = Sketch()
    x = sketch.input("x", 3)
    model = sketch.model(sketch.add("Relu", x), sketch.constant([1.0, 2.0]))
    got = simulate(model, None, {"x": np.asarray([-1, 0, 1], np.float32)})
    np.testing.assert_array_equal(got["constant_0"], [1.0, 2.0])
    np.testing.assert_array_equal(got["relu_0.0"], [0.0, 0.0, 1.0])


def test_constants_and_casts_of_half_precision_are_run_by_the_runtime() -> None:
    sketch = Sketch()
    half = sketch.add("Mul", sketch.add("Cast", sketch.input("x", 3), to=10), sketch.constant([3.0], np.float16))
    model = sketch.model(sketch.add("Cast", half, to=1))
    got = simulate_all(model, None, {"x": np.asarray([0.1, 1.0, 70000.0], np.float32)}, {})[str(model.graph.outputs[0].name)]
    np.testing.assert_array_equal(got, np.asarray([np.float16(0.1) * np.float16(3), 3.0, np.inf], np.float32))


def test_integer_layers_take_empty_tensors() -> None:
    sketch = Sketch()
    x = sketch.input("x", "n", 4)
    model = sketch.model(sketch.add("MatMul", x, sketch.normal(4, 3), name="product"))
    planned = plan_for(model, feeds=[{"x": np.ones((2, 4), np.float32)}])
    assert planned.plan.ops["product"].runs == "integer"
    (got,) = simulate(model, planned.plan, {"x": np.zeros((0, 4), np.float32)}, {}).values()
    assert got.shape == (0, 3)


def test_all_tensors_are_told_in_the_order_in_which_they_come_to_be() -> None:
    sketch = Sketch()
    x = sketch.add("Relu", sketch.input("x", 2), name="first")
    model = sketch.model(sketch.add("Neg", x, name="second"))
    found = simulate_all(model, None, {"x": np.asarray([-1, 1], np.float32)})
    assert list(found) == ["x", "first.0", "second.0"]
    np.testing.assert_array_equal(found["second.0"], [-0.0, -1.0])
