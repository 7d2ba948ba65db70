from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.canonicalise.folding import layers
from converter.graph.builder import GraphBuilder
from converter.testing.rewrites import Draft, assert_equal_outputs, outputs_of, random_feed, weights

KINDS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "Conv": ((2, 4, 5, 5), (6, 2, 3, 3), {"group": 2}),
    "ConvTranspose": ((2, 4, 5, 5), (4, 3, 3, 3), {"group": 2}),
    "Gemm": ((3, 4), (4, 6), {}),
    "transposed Gemm": ((3, 4), (6, 4), {"transB": 1}),
    "MatMul": ((2, 3, 4), (4, 6), {}),
}


def single(kind: str, *rest: np.ndarray) -> tuple[Draft, onnx.ModelProto]:
    shape, weight, attrs = KINDS[kind]
    draft = Draft(x=shape)
    return draft, draft.model(draft.add(kind.split()[-1], "x", weights(*weight), *rest, **attrs))


def layer_of(model: onnx.ModelProto) -> tuple[ir.Model, ir.Node]:
    read = ir.from_proto(model)
    return read, next(n for n in read.graph if n.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"))


@pytest.mark.parametrize("kind", KINDS)
def test_scaled_outputs(kind: str) -> None:
    _, model = single(kind)
    factor = weights(6, seed=1).astype(np.float64)
    read, layer = layer_of(model)
    assert layers.set_weights(GraphBuilder(read.graph), layer, layers.scale_outputs(layer, factor), None)
    shape = (6, 1, 1) if kind.startswith("Conv") else (6,)
    feed = random_feed(model)
    (expected,), (got,) = outputs_of(model, feed).values(), outputs_of(ir.to_proto(read), feed).values()
    np.testing.assert_allclose(got, expected * factor.reshape(shape), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_scaled_inputs(kind: str) -> None:
    _, model = single(kind)
    factor = weights(4, seed=1)
    read, layer = layer_of(model)
    assert layers.set_weights(GraphBuilder(read.graph), layer, layers.scale_inputs(layer, factor.astype(np.float64)), None)
    feed = random_feed(model)
    scaled = {"x": feed["x"] * factor.reshape((4, 1, 1) if kind.startswith("Conv") else (4,))}
    (expected,), (got,) = outputs_of(model, scaled).values(), outputs_of(ir.to_proto(read), feed).values()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["Conv", "Gemm", "transposed Gemm"])
def test_summed_inputs(kind: str) -> None:
    _, model = single(kind)
    offset = weights(4, seed=1)
    _, layer = layer_of(model)
    shape = (4, 1, 1) if kind == "Conv" else (4,)
    zero = np.zeros(KINDS[kind][0], np.float32)
    (expected,) = outputs_of(model, {"x": zero + offset.reshape(shape)}).values()
    total = layers.sum_inputs(layer, offset.astype(np.float64))
    np.testing.assert_allclose(expected, np.broadcast_to(total.reshape((6, 1, 1) if kind == "Conv" else (6,)), expected.shape), rtol=1e-5)


@pytest.mark.parametrize(
    ("bias", "expected"),
    [((6,), True), ((), True), ((1, 6), True), ((1,), True), ((3, 1), False), ((3, 6), False)],
    ids=str,
)
def test_a_layer_has_one_bias_per_output_channel(bias: tuple[int, ...], expected: bool) -> None:
    _, model = single("Gemm", np.asarray(weights(*bias)))
    _, layer = layer_of(model)
    assert layers.is_layer(layer, "Gemm") is expected


def test_a_layer_acts_on_its_input_as_it_is() -> None:
    for attrs in ({"alpha": 0.5}, {"beta": 2.0}, {"transA": 1}):
        draft = Draft(x=(4, 4))
        _, layer = layer_of(draft.model(draft.add("Gemm", "x", weights(4, 4), weights(4), **attrs)))
        assert not layers.is_layer(layer, "Gemm")


def test_a_computed_weight_makes_no_layer() -> None:
    draft = Draft(x=(4, 4), y=(4, 4))
    _, layer = layer_of(draft.model(draft.add("MatMul", "x", "y")))
    assert not layers.is_layer(layer, "MatMul")
    assert not layers.is_layer(None, "MatMul")


def test_weights_beyond_float32_change_nothing() -> None:
    _, model = single("Conv")
    read, layer = layer_of(model)
    assert not layers.set_weights(GraphBuilder(read.graph), layer, np.full((6, 2, 3, 3), 1e39), np.zeros(6))
    assert_equal_outputs(model, ir.to_proto(read), random_feed(model))
    assert len(layer.inputs) == 2


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({}, False),
        ({"pads": [0, 0, 0, 0]}, False),
        ({"pads": [0, 0, 1, 0]}, True),
        ({"auto_pad": "VALID"}, False),
        ({"auto_pad": "SAME_UPPER"}, True),
    ],
    ids=str,
)
def test_borders(attrs: dict[str, Any], expected: bool) -> None:
    draft = Draft(x=(1, 4, 5, 5))
    _, layer = layer_of(draft.model(draft.add("Conv", "x", weights(6, 4, 3, 3), **attrs)))
    assert layers.pads(layer) is expected
