"""Signed codes written unsigned: the same numbers, on kernels that are fast and do not saturate."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.unsigned_codes import unsigned_codes


def graph_of(nodes: list[onnx.NodeProto], constants: dict[str, Any]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "codes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def confined_convolution() -> onnx.ModelProto:
    """A convolution whose codes are clipped to six bits, moved, and read; its weights have no zero point."""
    generator = np.random.default_rng(0)
    constants: dict[str, Any] = {
        "scale": np.float32(0.05),
        "zero": np.int8(-7),
        "low": np.int8(-32),
        "high": np.int8(31),
        "weight": generator.integers(-127, 128, (8, 16, 1, 1)).astype(np.int8),
        "weight_scale": generator.uniform(0.01, 0.02, 8).astype(np.float32),
        "shape": np.array([1, 8, 16]),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["x_q"]),
        helper.make_node("Clip", ["x_q", "low", "high"], ["x_c"]),
        helper.make_node("DequantizeLinear", ["x_c", "scale", "zero"], ["x_dq"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale"], ["weight_dq"], axis=0),
        helper.make_node("Conv", ["x_dq", "weight_dq"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "scale", "zero"], ["c_q"]),
        helper.make_node("Reshape", ["c_q", "shape"], ["c_r"]),
        helper.make_node("DequantizeLinear", ["c_r", "scale", "zero"], ["y"]),
    ]
    return graph_of(nodes, constants)


@pytest.fixture
def sample() -> npt.NDArray[np.float32]:
    return (2.0 * np.random.default_rng(1).standard_normal((1, 16, 4, 4))).astype(np.float32)


def run(model: onnx.ModelProto, sample: npt.NDArray[np.float32], *, fused: bool) -> npt.NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": sample})
    return np.asarray(result)


@pytest.mark.parametrize("fused", [False, True])
def test_the_numbers_are_those_of_the_unfused_graph_and_no_int8_is_left(sample: npt.NDArray[np.float32], *, fused: bool) -> None:
    model = confined_convolution()
    unsigned = unsigned_codes(model)
    assert unsigned is not None
    expected = run(model, sample, fused=False)
    assert np.array_equal(run(unsigned, sample, fused=fused), expected)
    assert len(np.unique(expected)) > 20
    assert all(t.data_type != TensorProto.INT8 for t in unsigned.graph.initializer)


def test_the_model_given_stays_as_it_is() -> None:
    model = confined_convolution()
    text = model.SerializeToString(deterministic=True)
    unsigned_codes(model)
    assert model.SerializeToString(deterministic=True) == text


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (helper.make_node("Cast", ["x_q"], ["y"], to=TensorProto.FLOAT), {}),
        (helper.make_node("Pad", ["x_q", "pads"], ["y"]), {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
        (helper.make_node("Clip", ["x_q", "", "high"], ["y"]), None),
    ],
    ids=["cast", "pad with an implied zero", "limit that is computed"],
)
def test_operators_that_know_codes_by_number_are_left_alone(node: onnx.NodeProto, constants: dict[str, Any] | None) -> None:
    quantize = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["x_q"])
    limit = helper.make_node("Cast", ["scale"], ["high"], to=TensorProto.INT8)
    nodes = [quantize, node] if constants is not None else [quantize, limit, node]
    assert unsigned_codes(graph_of(nodes, {"scale": np.array(0.1, np.float32), "zero": np.array(0, np.int8), **(constants or {})})) is None
