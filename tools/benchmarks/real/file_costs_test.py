"""What a file costs: kernels of the runtime, priced one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.options import Options
from converter.pipeline import convert
from converter.targets import find_target
from converter.targets.costs import price
from converter.testing.models import hybrid_model
from tools.benchmarks.compare.peers import ort_static
from tools.benchmarks.real.file_costs import file_cost
from tools.benchmarks.real.session_settings import settings_for

TARGET = find_target("arm64")
SIDE, IN, OUT = 8, 4, 16
FEED = {"x": np.random.default_rng(0).normal(size=(1, IN, SIDE, SIDE)).astype(np.float32)}


def _pointwise(path: Path) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.random.default_rng(1).normal(size=(OUT, IN, 1, 1)).astype(np.float32), "w")
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, SIDE, SIDE]) for n, c in (("x", IN), ("y", OUT))]
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return model


def test_a_convolution_by_hand_in_float_and_in_integer(tmp_path: Path) -> None:
    model = _pointwise(tmp_path / "float.onnx")
    read, written = IN * SIDE * SIDE, OUT * SIDE * SIDE
    prices = TARGET.costs["PointwiseConv"]
    assert prices.integer is not None
    amounts = {"node": 1, "element": written, "input": read, "mac": IN * written}

    assert file_cost(model, FEED, {}, TARGET) == pytest.approx(TARGET.call + price(prices.float, amounts))
    quantized = ort_static(tmp_path / "float.onnx", [FEED])
    expected = TARGET.call + TARGET.quantize(read) + price(prices.integer, amounts) + TARGET.dequantize(written)
    assert file_cost(quantized, FEED, settings_for(quantized), TARGET) == pytest.approx(expected)


def test_our_own_files_cost_what_their_plans_say(tmp_path: Path) -> None:
    source, output = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    source.write_bytes(hybrid_model().SerializeToString())
    report = convert(source, output, Options(samples=4, method="minmax", placement="all", threads=1))
    made = onnx.load(output)
    feed = {i.name: np.zeros([d.dim_value for d in i.type.tensor_type.shape.dim], np.float32) for i in made.graph.input}
    assert file_cost(made, feed, settings_for(made), TARGET) == pytest.approx(report.predicted, rel=0.1)


def test_settings_follow_the_type_of_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _pointwise(tmp_path / "float.onnx")
    signed, unsigned = ort_static(tmp_path / "float.onnx", [FEED]), ort_static(tmp_path / "float.onnx", [FEED], unsigned=True)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert settings_for(model) == {}
    assert settings_for(signed) == {"session.qdqisint8allowed": "1"} and settings_for(unsigned) == {"session.x64quantprecision": "1"}
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert settings_for(signed) == {}


def test_weights_that_are_made_numbers_at_every_inference_cost_that_and_the_float_kernel(tmp_path: Path) -> None:
    floats = file_cost(_pointwise(tmp_path / "float.onnx"), FEED, {}, TARGET)
    made = ort_static(tmp_path / "float.onnx", [FEED])
    weights, convolution = (next(n for n in made.graph.node if n.op_type == kind) for kind in ("DequantizeLinear", "Conv"))
    assert weights.input[0] == "w_quantized"
    # with no codes around it the convolution runs in float
    convolution.input[0], convolution.output[0] = "x", "y"
    del made.graph.node[:]
    made.graph.node.extend([weights, convolution])
    assert file_cost(made, FEED, settings_for(made), TARGET) == pytest.approx(floats + TARGET.dequantize(IN * OUT))
