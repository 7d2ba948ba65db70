"""Each unsafe form, built by hand: refused by the check, and shown to be unsafe in the runtime where it fails there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.errors import ModelError, VerificationError
from converter.runtime.session import open_session, run_session
from converter.verify.fusion_hazards import check_emitted

S_X, S_W, S_Y = 0.05, 0.01, 0.1


class Quantized:
    """A quantized graph, node by node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, array: Any, dtype: type) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def q(self, x: str, name: str, scale: Any = S_X, zero: Any = 0, *, kind: str = "QuantizeLinear", **rest: Any) -> str:
        zeros = np.broadcast_to(zero, np.shape(scale))
        parts = [self.constant(f"{name}_scale", scale, np.float32), self.constant(f"{name}_zero", zeros, rest.pop("dtype", np.int8))]
        axis = {"axis": rest["axis"]} if "axis" in rest else {}
        self.nodes.append(helper.make_node(kind, [x, *parts], [name], name=f"{name}_node", **axis))
        return name

    def dq(self, x: str, name: str, scale: Any = S_X, zero: Any = 0, **rest: Any) -> str:
        return self.q(x, name, scale, zero, kind="DequantizeLinear", **rest)

    def pair(self, x: str, name: str, scale: Any = S_X, **rest: Any) -> str:
        return self.dq(self.q(x, f"{name}_codes", scale, **rest), name, scale, **rest)

    def weight(self, name: str, shape: Sequence[int], scale: Any = S_W, zero: Any = 0, **rest: Any) -> str:
        codes = np.random.default_rng(0).integers(-99, 100, shape)
        return self.dq(self.constant(f"{name}_codes", codes, np.int8), name, scale, zero, **rest)

    def bias(self, name: str, scale: Any, **rest: Any) -> str:
        codes = self.constant(f"{name}_codes", np.arange(np.size(scale) if np.ndim(scale) else 8), np.int32)
        return self.dq(codes, name, scale, dtype=np.int32, **rest)

    def add(self, op_type: str, *inputs: str, name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=f"{name}_node", **attributes))
        return name

    def model(self, shape: Sequence[int], output: str) -> onnx.ModelProto:
        info = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        out = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "quantized", info, out, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def sound_conv(
    *, bias_scale: Any = None, weight_scale: Any = S_W, weight_zero: Any = 0, before: str = "", after: str = ""
) -> onnx.ModelProto:
    """DQ, Conv, Q around a sound convolution of eight channels, or with one thing changed."""
    g = Quantized()
    channels = np.linspace(0.01, 0.1, 8)
    if before:
        x = g.pair("x", "x_real", channels, axis=1)
        x = g.add("Transpose", x, name="turned", perm=[0, 1, 3, 2]) if before == "Transpose" else x
    else:
        x = g.pair("x", "x_real")
    per_channel = {"axis": 0} if np.ndim(weight_scale) else {}
    operands = [x, g.weight("w", (8, 8, 1, 1), weight_scale, weight_zero, **per_channel)]
    if bias_scale is not None:
        operands.append(g.bias("b", bias_scale, **({"axis": 0} if np.ndim(bias_scale) else {})))
    y = g.add("Conv", *operands, name="y")
    if after:
        y = g.add("Transpose", y, name="turned", perm=[0, 1, 3, 2]) if after == "Transpose" else y
        return g.model((1, 8, 6, 6), g.pair(y, "out", channels, axis=1))
    return g.model((1, 8, 6, 6), g.pair(y, "out", S_Y))


def gemm(bias_scale: Any) -> onnx.ModelProto:
    g = Quantized()
    bias = g.bias("b", bias_scale, axis=0)
    y = g.add("Gemm", g.pair("x", "x_real"), g.weight("w", (8, 8), np.full(8, S_W), axis=1), bias, name="y")
    return g.model((3, 8), y)


def product(*, per_axis: str = "") -> onnx.ModelProto:
    g = Quantized()
    channels = np.linspace(0.01, 0.1, 8)
    sides = [
        g.pair("x", f"{side}_real", channels if per_axis == side else S_X, **({"axis": 1} if per_axis == side else {})) for side in "ab"
    ]
    return g.model((8, 8), g.pair(g.add("MatMul", *sides, name="y"), "out", S_Y))


def two_layers(*, share: str = "") -> onnx.ModelProto:
    g = Quantized()
    first = g.weight("w", (8, 8, 1, 1))
    y = g.pair(g.add("Conv", g.pair("x", "x_real"), first, name="y"), "y_real", S_Y)
    if share == "codes":
        second = g.dq("w_codes", "w2", S_W)
    elif share == "dq":
        second = first
    else:
        second = g.weight("w2", (8, 8, 1, 1))
    return g.model((1, 8, 6, 6), g.pair(g.add("Conv", y, second, name="z"), "out", S_Y))


def transposed(**rest: Any) -> onnx.ModelProto:
    g = Quantized()
    x = g.pair("x", "x_real", np.linspace(0.01, 0.1, 8), axis=1)
    return g.model((1, 8, 6, 6), g.pair(g.add("ConvTranspose", x, g.weight("w", (8, 4, 2, 2)), name="y", strides=[2, 2]), "out", S_Y))


def scaled(scale: Any) -> onnx.ModelProto:
    g = Quantized()
    return g.model((1, 8), g.pair("x", "out", scale))


def per_channel(*, zero: Any = 0, read_zero: int = 0, axis: int = 1, reader: str = "", producer: str = "") -> onnx.ModelProto:
    """A Q with one scale per channel, read by a DQ with one for all, in front of a convolution; or with one thing changed."""
    g = Quantized()
    x = "x"
    if producer:
        x = g.add(producer, g.pair("x", "left"), g.pair("x", "right"), name="sum")
    codes = g.q(x, "codes", np.linspace(0.01, 0.1, 8), zero, axis=axis)
    if reader == "Clip":
        codes = g.add("Clip", codes, g.constant("low", -31, np.int8), g.constant("high", 31, np.int8), name="clipped")
    elif reader:
        codes = g.add(reader, codes, name="moved")
    y = g.add("Conv", g.dq(codes, "x_real", 1.0, read_zero), g.weight("w", (8, 8, 1, 1)), name="y")
    return g.model((1, 8, 8, 6), g.pair(y, "out", S_Y))


def for_a_float_operator() -> onnx.ModelProto:
    """One scale per channel on both sides, read by an operator that has no integer form."""
    g = Quantized()
    x = g.pair("x", "x_real", np.linspace(0.01, 0.1, 8), zero=np.arange(8), axis=1)
    return g.model((2, 8), g.add("Gelu", x, name="y"))


def scales() -> np.ndarray[Any, Any]:
    return np.full(8, np.float32(S_X) * np.float32(S_W), np.float32)


SOUND: dict[str, Callable[[], onnx.ModelProto]] = {
    "conv": sound_conv,
    "conv with bias": lambda: sound_conv(bias_scale=scales(), weight_scale=np.full(8, S_W)),
    "conv with one scale": lambda: sound_conv(bias_scale=scales()[0]),
    "gemm": lambda: gemm(scales()),
    "product": product,
    "two layers": two_layers,
    "one scale per channel": per_channel,
    "one scale per channel and a zero point": lambda: per_channel(zero=-100, read_zero=-100),
    "one scale per channel and fewer bits": lambda: per_channel(reader="Clip"),
    "one scale per channel for a float operator": for_a_float_operator,
    "smallest normal scale": lambda: scaled(np.finfo(np.float32).tiny),
}

UNSAFE: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "per-axis DQ": (lambda: sound_conv(before="DQ"), "per-axis DequantizeLinear"),
    "per-axis DQ and Transpose": (lambda: sound_conv(before="Transpose"), "per-axis DequantizeLinear"),
    "per-axis Q": (lambda: sound_conv(after="Q"), "per-axis QuantizeLinear"),
    "per-axis Q and Transpose": (lambda: sound_conv(after="Transpose"), "per-axis QuantizeLinear"),
    "per-axis DQ at a ConvTranspose": (transposed, "per-axis DequantizeLinear"),
    "per-axis DQ on the left of a product": (lambda: product(per_axis="a"), "per-axis DequantizeLinear"),
    "per-axis DQ on the right of a product": (lambda: product(per_axis="b"), "per-axis DequantizeLinear"),
    "several zero points": (lambda: sound_conv(weight_scale=np.full(8, S_W), weight_zero=[0, 1] * 4), "several zero points"),
    "bias scale of a Conv": (lambda: sound_conv(bias_scale=scales() * 2, weight_scale=np.full(8, S_W)), "bias scale"),
    "bias scale of a Gemm": (lambda: gemm(scales() * 2), "bias scale"),
    "bias scale, one channel, one bit": (
        lambda: gemm(np.append(scales()[:7], np.nextafter(scales()[0], np.float32(1)))),
        "bias scale",
    ),
    "scales per channel, several zero points": (lambda: per_channel(zero=[0, 1] * 4), "does not stand for"),
    "scales per channel, another zero point": (lambda: per_channel(read_zero=3), "does not stand for"),
    "scales per channel, another axis": (lambda: per_channel(axis=2), "does not stand for"),
    "scales per channel, codes moved": (lambda: per_channel(reader="Transpose"), "reads the codes of a per-axis"),
    "scales per channel behind an addition": (lambda: per_channel(producer="Add"), "straight behind the Add"),
    "shared codes": (lambda: two_layers(share="codes"), "shared between nodes"),
    "shared DQ": (lambda: two_layers(share="dq"), "shared between nodes"),
    "zero scale": (lambda: scaled(0.0), "not a positive normal number"),
    "denormal scale": (lambda: scaled(1e-42), "not a positive normal number"),
    "negative scale": (lambda: scaled(-0.1), "not a positive normal number"),
    "NaN scale": (lambda: scaled(np.nan), "not a positive normal number"),
    "infinite scale": (lambda: scaled(np.inf), "not a positive normal number"),
}


@pytest.mark.parametrize("build", SOUND.values(), ids=SOUND)
def test_sound_forms_pass_and_run(build: Callable[[], onnx.ModelProto]) -> None:
    model = build()
    check_emitted(ir.from_proto(model))
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    session = open_session(model, threads=1, settings={"session.qdqisint8allowed": "1"})
    assert run_session(session, {"x": np.ones(shape, np.float32)})


@pytest.mark.parametrize(("build", "message"), UNSAFE.values(), ids=UNSAFE)
def test_unsafe_forms_are_refused(build: Callable[[], onnx.ModelProto], message: str) -> None:
    with pytest.raises(VerificationError, match=message) as caught:
        check_emitted(ir.from_proto(build()))
    assert "_node" in caught.value.where


@pytest.mark.parametrize("name", ["per-axis DQ", "per-axis DQ and Transpose", "per-axis Q", "per-axis Q and Transpose"])
def test_the_runtime_does_fail_on_them(name: str) -> None:
    """If this starts to pass, the refusal can go."""
    session = open_session(UNSAFE[name][0](), threads=1, settings={"session.qdqisint8allowed": "1"})
    with pytest.raises(ModelError):
        run_session(session, {"x": np.ones((1, 8, 6, 6), np.float32)})


def test_the_runtime_is_silently_wrong_about_the_bias_of_a_gemm() -> None:
    feed = {"x": np.zeros((3, 8), np.float32)}
    model = gemm(scales() * 2)
    fused, plain = (run_session(open_session(model, threads=1, optimise=o), feed)["y"] for o in (True, False))
    np.testing.assert_allclose(plain, 2 * fused, rtol=1e-6)


def test_a_bias_of_another_type_is_refused() -> None:
    model = gemm(scales())
    for initializer in model.graph.initializer:
        if initializer.name in ("b_codes", "b_zero"):
            initializer.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(initializer).astype(np.int8), initializer.name))
    with pytest.raises(VerificationError, match="not stored as int32"):
        check_emitted(ir.from_proto(model))
