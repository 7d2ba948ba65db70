from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.load.metadata import VERSION
from converter.load.model import load
from converter.load.testing.files import refusal, written
from converter.load.vetting import OLDEST_OPSET
from converter.testing.models import Values, hybrid_model, make_model

FLOAT, WEIGHT = TensorProto.FLOAT, np.ones((4, 4), np.float32)


def matmul(weight: np.ndarray[Any, Any] = WEIGHT, opset: int = 17) -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    return make_model([node], [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])], initializers={"w": weight}, opset=opset)


def unary(op_type: str, *, domain: str = "", kind: int = FLOAT, opset: int = 17) -> onnx.ModelProto:
    node = helper.make_node(op_type, ["x"], ["y"], name="the node", domain=domain)
    return make_model([node], [("x", kind, [1, 4])], [("y", kind, [1, 4])], opset=opset)


def test_what_has_to_be_kept_is_remembered(tmp_path: Path) -> None:
    path = written(tmp_path, hybrid_model(dynamic_batch=True, metadata={"b": "1", "a": "2"}))
    source = load(path)
    assert [(i.name, i.dtype.name, i.shape) for i in source.inputs] == [("image", "float32", ("n", 3, 32, 32))]
    assert [(o.name, o.shape) for o in source.outputs] == [("logits", ("n", 10))]
    assert list(source.metadata.items()) == [("b", "1"), ("a", "2")]
    assert source.opset == 17 and source.bytes == path.stat().st_size and source.external == ()


def test_initializers_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    model = matmul()
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [4, 4]))
    assert [i.name for i in load(written(tmp_path, model)).inputs] == ["x"]


def test_open_dimensions(tmp_path: Path) -> None:
    model = unary("Relu")
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    for symbol in ("n", "", "?"):
        model.graph.input[0].type.tensor_type.shape.dim.add().dim_param = symbol
    assert load(written(tmp_path, model)).inputs[0].shape == ("n", None, None)


def test_inputs_without_shape(tmp_path: Path) -> None:
    model = unary("Relu")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    error = refusal(written(tmp_path, model))
    assert error.what == "'x' has no shape" and "'x'" in error.where


def test_outputs_without_shape_have_the_one_that_follows(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["same"]), helper.make_node("Concat", ["x", "x"], ["twice"], axis=0)]
    model = make_model(nodes, [("x", FLOAT, ["n", 4])], [("same", FLOAT, None), ("twice", FLOAT, None)])
    assert [(o.name, o.shape) for o in load(written(tmp_path, model)).outputs] == [("same", ("n", 4)), ("twice", (None, 4))]


def test_outputs_whose_rank_cannot_be_known(tmp_path: Path) -> None:
    inputs: Values = [("x", FLOAT, [4]), ("size", TensorProto.INT64, ["rank"])]
    model = make_model([helper.make_node("Reshape", ["x", "size"], ["y"])], inputs, [("y", FLOAT, None)])
    assert refusal(written(tmp_path, model)).what == "'y' has no shape"


def test_scalars_have_a_shape(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    assert load(written(tmp_path, make_model([node], [("x", FLOAT, [])], [("y", FLOAT, [])]))).inputs[0].shape == ()


@pytest.mark.parametrize("opset", [OLDEST_OPSET, 13, 20, onnx.defs.onnx_opset_version()])
def test_supported_opsets(tmp_path: Path, opset: int) -> None:
    assert load(written(tmp_path, hybrid_model(opset=opset))).opset == opset


@pytest.mark.parametrize(("opset", "word"), [(OLDEST_OPSET - 1, "too old"), (1, "too old"), (onnx.defs.onnx_opset_version() + 1, "newer")])
def test_opsets_out_of_range(tmp_path: Path, opset: int, word: str) -> None:
    error = refusal(written(tmp_path, unary("Relu", opset=opset)))
    assert word in error.what and str(opset) in error.what


def test_a_size_of_zero_is_a_size(tmp_path: Path) -> None:
    node = helper.make_node("Concat", ["x", "past"], ["y"], axis=1)
    model = make_model([node], [("x", FLOAT, [1, 4]), ("past", FLOAT, [1, 0])], [("y", FLOAT, [1, 4])])
    assert [i.shape for i in load(written(tmp_path, model)).inputs] == [(1, 4), (1, 0)]


def test_group_normalization_of_opset_18_is_valid_although_deprecated(tmp_path: Path) -> None:
    node = helper.make_node("GroupNormalization", ["x", "s", "s"], ["y"], num_groups=2)
    shape, constants = [1, 4, 2, 2], {"s": np.ones(2, np.float32)}
    model = make_model([node], [("x", FLOAT, shape)], [("y", FLOAT, shape)], initializers=constants, opset=18)
    loaded = load(written(tmp_path, model)).model
    assert loaded.graph.node[0].domain == "" and [o.domain for o in loaded.opset_import] == [""]
    model.graph.node[0].input[0] = "nobody makes this"
    assert "nobody makes this" in refusal(written(tmp_path, model)).what


def test_no_standard_opset(tmp_path: Path) -> None:
    model = unary("Relu")
    model.opset_import[0].domain = "ai.onnx.ml"
    assert "standard operator set" in refusal(written(tmp_path, model)).what


# Not a whole model


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "absent.onnx").what
    assert "folder" in refusal(tmp_path).what
    assert "cannot be read" in refusal(tmp_path / ("x" * 300)).what


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, unary("Relu"))
    monkeypatch.setattr(os, "access", lambda *_: False)  # permission bits do not bind root
    assert "cannot be read" in refusal(path).what


def test_read_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> bytes:
        raise OSError(5, "Input/output error")

    path = written(tmp_path, unary("Relu"))
    monkeypatch.setattr(Path, "read_bytes", fail)
    assert "Input/output error" in refusal(path).what


def test_invalid_graph(tmp_path: Path) -> None:
    model = unary("Relu")
    model.graph.node[0].input[0] = "nobody makes this"
    error = refusal(written(tmp_path, model))
    assert "not valid ONNX" in error.what and "nobody makes this" in str(error)


def test_unknown_operator_of_the_standard_domain(tmp_path: Path) -> None:
    assert "Wobble" in refusal(written(tmp_path, unary("Wobble"))).what


def test_model_without_inputs(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["w"], ["y"])
    error = refusal(written(tmp_path, make_model([node], [], [("y", FLOAT, [4, 4])], initializers={"w": WEIGHT})))
    assert "no inputs" in error.what


# What is not supported


@pytest.mark.parametrize("domain", ["com.microsoft", "my.ops"])
def test_foreign_domain_is_named_with_its_node(tmp_path: Path, domain: str) -> None:
    error = refusal(written(tmp_path, unary("FancyNorm", domain=domain)))
    assert "FancyNorm" in error.what and domain in error.what and "the node" in error.where
    assert ("basic optimisation level" if domain == "com.microsoft" else "standard ONNX operators") in error.hint


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("my.ops", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    model = unary("Twice", domain="my.ops")
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    source = load(written(tmp_path, model))
    assert [n.op_type for n in source.model.graph.node] == ["Relu"] and not source.model.functions
    assert [o.domain for o in source.model.opset_import] == [""]
    assert source.digest == hashlib.sha256(source.path.read_bytes()).hexdigest()
    model.graph.node[0].op_type = "Thrice"
    assert "Thrice" in refusal(written(tmp_path, model)).what


@pytest.mark.parametrize(
    ("op_type", "domain"),
    [
        ("QuantizeLinear", ""),
        ("DequantizeLinear", ""),
        ("DynamicQuantizeLinear", ""),
        ("QLinearConv", ""),
        ("MatMulInteger", ""),
        ("QLinearAdd", "com.microsoft"),
        ("QAttention", "com.microsoft"),
        ("DynamicQuantizeMatMul", "com.microsoft"),
        ("MatMulNBits", "com.microsoft"),
    ],
)
def test_quantized_models_are_called_quantized(tmp_path: Path, op_type: str, domain: str) -> None:
    error = refusal(written(tmp_path, unary(op_type, domain=domain)))
    assert "already quantized" in error.what and op_type in error.what and "the node" in error.where


def test_a_converted_model_without_quantized_operators_is_refused(tmp_path: Path) -> None:
    model = unary("Relu")
    helper.set_model_props(model, {VERSION: "0.1.0"})
    assert "already converted" in refusal(written(tmp_path, model)).what


def choice(condition: str) -> onnx.ModelProto:
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "branch", [], [helper.make_tensor_value_info("z", FLOAT, [1, 4])])
    node = helper.make_node("If", [condition], ["y"], name="the choice", then_branch=branch, else_branch=branch)
    inputs: Values = [("x", FLOAT, [1, 4]), ("given", TensorProto.BOOL, [])]
    return make_model([node], inputs, [("y", FLOAT, [1, 4])], initializers={"constant": np.asarray(True)})


def test_control_flow(tmp_path: Path) -> None:
    error = refusal(written(tmp_path, choice("given")))
    assert "'If'" in error.what and "the choice" in error.where
    assert [n.op_type for n in load(written(tmp_path, choice("constant"))).model.graph.node] == ["If"]


def test_quantized_operators_in_branches_are_found(tmp_path: Path) -> None:
    output = helper.make_tensor_value_info("z", TensorProto.UINT8, [1, 4])
    branch = helper.make_graph([helper.make_node("QuantizeLinear", ["x", "s"], ["z"])], "branch", [], [output])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = make_model([node], [("x", FLOAT, [1, 4]), ("c", TensorProto.BOOL, [])], [("y", TensorProto.UINT8, [1, 4])])
    assert "already quantized" in refusal(written(tmp_path, model)).what


@pytest.mark.parametrize("kind", ["DOUBLE", "BFLOAT16", "INT8", "STRING"])
def test_types_of_inputs(tmp_path: Path, kind: str) -> None:
    error = refusal(written(tmp_path, unary("Identity", kind=TensorProto.DataType.Value(kind))))
    assert "'x'" in error.what and kind.lower() in error.what and "'x'" in error.where


def test_unknown_type_number(tmp_path: Path) -> None:
    model = unary("Relu")
    model.graph.input[0].type.tensor_type.elem_type = 999
    refusal(written(tmp_path, model))


def test_sequences_are_not_tensors(tmp_path: Path) -> None:
    model = unary("Relu")
    sequence = helper.make_tensor_sequence_value_info("s", FLOAT, [1])
    model.graph.input.append(sequence)
    assert "not a tensor" in refusal(written(tmp_path, model)).what


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    return model


def test_half_precision_is_computed_in_float32_and_the_user_is_told(tmp_path: Path) -> None:
    source = load(written(tmp_path, half(matmul())))
    assert [v.dtype.name for v in (*source.inputs, *source.outputs)] == ["float16", "float16"]
    assert [i.data_type for i in source.model.graph.initializer] == [FLOAT]
    (note,) = source.notes
    assert "half precision" in note and "float32" in note
    assert load(written(tmp_path, matmul())).notes == ()


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT8])
def test_integer_inputs_are_allowed(tmp_path: Path, kind: int) -> None:
    assert load(written(tmp_path, unary("Identity", kind=kind))).inputs[0].dtype == helper.tensor_dtype_to_np_dtype(kind)


# Weights


def constant_node(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with its weight in a Constant node."""
    node = helper.make_node("Constant", [], ["w"], value=model.graph.initializer[0])
    del model.graph.initializer[:]
    model.graph.node.insert(0, node)
    return model


def typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with its weight in ``float_data`` instead of raw bytes."""
    tensor = model.graph.initializer[0]
    values = numpy_helper.to_array(tensor)
    tensor.ClearField("raw_data")
    tensor.float_data.extend(values.ravel().tolist())
    return model


def external(model: onnx.ModelProto) -> onnx.ModelProto:
    onnx.external_data_helper.convert_model_to_external_data(model, location="in.onnx.data", size_threshold=0)
    return model


@pytest.mark.parametrize("store", [lambda m: m, constant_node, typed, external], ids=["initializer", "constant", "float_data", "external"])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "Inf"), (-np.inf, "Inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float, word: str, store: Callable[[onnx.ModelProto], onnx.ModelProto]) -> None:
    weight = WEIGHT.copy()
    weight[2, 1] = value
    path = tmp_path / "in.onnx"
    onnx.save(store(matmul(weight)), path)
    error = refusal(path)
    assert word in error.what and "'w'" in error.where


def test_numbers_of_constant_nodes(tmp_path: Path) -> None:
    for attribute in ({"value_float": float("nan")}, {"value_floats": [0.0, float("inf"), 0.0, 1.0]}):
        constant = helper.make_node("Constant", [], ["c"], **attribute)
        product = helper.make_node("MatMul", ["x", "c"], ["y"])
        model = make_model([constant, product], [("x", FLOAT, [1, 4])], [("y", FLOAT, [1])])
        assert "'c'" in refusal(written(tmp_path, model)).what


def masked(op_type: str, mask: np.ndarray[Any, Any]) -> onnx.ModelProto:
    """A constant where it hides, limits or decides, and multiplies nothing."""
    row: Values = [("x", FLOAT, [1, 4])]
    reads = {"Add": ["x", "m"], "Mul": ["m", "x"], "Where": ["c", "x", "m"], "Max": ["x", "m"], "Expand": ["m", "s"]}
    node = helper.make_node(op_type, reads[op_type], ["y"])
    constants = {"m": mask, "c": np.ones((1, 4), bool), "s": np.asarray([1, 4])}
    return make_model([node], row, [("y", FLOAT, [1, 4])], initializers={k: v for k, v in constants.items() if k in node.input})


@pytest.mark.parametrize("store", [lambda m: m, external], ids=["initializer", "external"])
@pytest.mark.parametrize("op_type", ["Add", "Mul", "Where", "Max"])
def test_infinite_constants_that_are_no_weights(tmp_path: Path, op_type: str, store: Callable[[onnx.ModelProto], onnx.ModelProto]) -> None:
    onnx.save(store(masked(op_type, np.asarray([[0, 0, -np.inf, 0]], np.float32))), tmp_path / "in.onnx")
    assert load(tmp_path / "in.onnx").inputs[0].name == "x"


@pytest.mark.parametrize("op_type", ["Add", "Mul", "Where", "Max"])
def test_constants_that_are_not_a_number(tmp_path: Path, op_type: str) -> None:
    assert "'m' holds NaN" in refusal(written(tmp_path, masked(op_type, np.asarray([[0, 0, np.nan, 0]], np.float32)))).what


def test_infinite_masks_of_attention(tmp_path: Path) -> None:
    mask = np.where(np.tri(4, dtype=bool), np.float32(0), np.float32(-np.inf))
    node = helper.make_node("Attention", ["x", "x", "x", "m"], ["y"])
    shape = [1, 1, 4, 4]
    model = make_model([node], [("x", FLOAT, shape)], [("y", FLOAT, shape)], initializers={"m": mask}, opset=23)
    assert load(written(tmp_path, model)).opset == 23


@pytest.mark.parametrize("moved", ["Transpose", "Cast", "Identity"])
def test_infinite_weights_are_found_behind_what_hands_them_on(tmp_path: Path, moved: str) -> None:
    weight = WEIGHT.astype(np.float16) if moved == "Cast" else WEIGHT.copy()
    weight[2, 1] = np.inf
    attributes = {"to": FLOAT} if moved == "Cast" else {}
    nodes = [helper.make_node(moved, ["w"], ["v"], **attributes), helper.make_node("MatMul", ["x", "v"], ["y"])]
    model = make_model(nodes, [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])], initializers={"w": weight})
    assert "'w' holds Inf" in refusal(written(tmp_path, model)).what


def test_attributes_that_are_not_a_number(tmp_path: Path) -> None:
    model = unary("LeakyRelu")
    model.graph.node[0].attribute.append(helper.make_attribute("alpha", float("nan")))
    error = refusal(written(tmp_path, model))
    assert "'alpha'" in error.what and "the node" in error.where


def test_infinite_limits_are_no_weights(tmp_path: Path) -> None:
    node = helper.make_node("Clip", ["x", "low", "high"], ["y"])
    limits = {"low": np.float32(0), "high": np.float32(np.inf)}
    model = make_model([node], [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])], initializers={k: np.asarray(v) for k, v in limits.items()})
    assert load(written(tmp_path, model)).inputs[0].name == "x"


def test_damaged_weight(tmp_path: Path) -> None:
    model = matmul()
    model.graph.initializer[0].raw_data = b"123"
    assert "damaged" in refusal(written(tmp_path, model)).what


def test_sparse_weight(tmp_path: Path) -> None:
    model = matmul()
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    indices = numpy_helper.from_array(np.asarray([0, 5], np.int64), "w_indices")
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 4]))
    assert "sparse" in refusal(written(tmp_path, model)).what
