from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.errors import ModelError
from converter.load.model import load
from converter.load.stored_integers import read_stored_integers
from converter.testing.models import make_model
from converter.testing.rewrites import assert_equal_outputs, op_types

FLOAT = TensorProto.FLOAT
CODES = np.arange(-64, 64, dtype=np.int8).reshape(16, 8)
SCALES = np.linspace(0.01, 0.03, 16, dtype=np.float32)
FEED = {"x": np.linspace(-1, 1, 16, dtype=np.float32)[None]}


def product(codes: npt.NDArray[Any], scales: npt.NDArray[Any], *, opset: int = 17, **attributes: int) -> onnx.ModelProto:
    """y = x @ w, with w stored as codes."""
    operands = {"codes": codes, "scale": scales, "zero": np.full_like(scales, 3, dtype=codes.dtype)}
    nodes = [
        helper.make_node("DequantizeLinear", list(operands), ["w"], name="weights", **attributes),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
    ]
    return make_model(nodes, [("x", FLOAT, [1, 16])], [("y", FLOAT, [1, 8])], initializers=operands, opset=opset)


def read(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float weights, which gives what it gave before."""
    before = onnx.ModelProto()
    before.CopyFrom(model)
    assert read_stored_integers(model)
    onnx.checker.check_model(model, full_check=True)
    assert_equal_outputs(before, model, FEED)
    return model


@pytest.mark.parametrize(
    "model",
    [
        product(CODES, np.asarray(0.02, np.float32)),
        product(CODES, SCALES, axis=0),
        product(CODES.view(np.uint8), SCALES[:8], axis=1),
        product(CODES, np.stack([SCALES[:8], SCALES[8:]]), opset=21, axis=0, block_size=8),
    ],
    ids=["one scale", "a scale a row", "a scale a column", "blocks"],
)
def test_weights_become_the_numbers_that_they_stand_for(model: onnx.ModelProto) -> None:
    result = read(model)
    assert op_types(result) == ["MatMul"] and [i.name for i in result.graph.initializer] == ["w"]


def test_weights_in_constant_nodes() -> None:
    model = product(CODES, SCALES, axis=0)
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    constants = [helper.make_node("Constant", [], [t.name], value=numpy_helper.from_array(numpy_helper.to_array(t))) for t in tensors]
    nodes = [*constants, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert [i.name for i in read(model).graph.initializer] == ["w"]


def test_codes_that_others_read_stay() -> None:
    model = product(CODES, SCALES, axis=0)
    model.graph.output.append(helper.make_tensor_value_info("codes", TensorProto.INT8, [16, 8]))
    assert [i.name for i in read(model).graph.initializer] == ["codes", "w"]


def test_codes_that_are_computed_are_left_alone() -> None:
    nodes = [helper.make_node("DequantizeLinear", ["x", "scale"], ["y"])]
    model = make_model(nodes, [("x", TensorProto.INT8, [4])], [("y", FLOAT, [4])], initializers={"scale": np.asarray(0.5, np.float32)})
    assert not read_stored_integers(model) and op_types(model) == ["DequantizeLinear"]


def test_a_model_with_stored_weights_is_loaded_with_a_note(tmp_path: Path) -> None:
    onnx.save(product(CODES, SCALES, axis=0), tmp_path / "in.onnx")
    assert any("stored as integers" in note for note in load(tmp_path / "in.onnx").notes)


def test_a_model_that_quantizes_its_activations_too_is_refused(tmp_path: Path) -> None:
    model = product(CODES, SCALES, axis=0)
    model.graph.node.append(helper.make_node("QuantizeLinear", ["y", "scale"], ["q"], axis=1))
    onnx.save(model, tmp_path / "in.onnx")
    with pytest.raises(ModelError, match="already quantized"):
        load(tmp_path / "in.onnx")
