from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.graph.protos import nodes_of, tensors_of
from converter.load.half_precision import widen_halves
from converter.runtime.session import run_model
from converter.testing.models import Array, hybrid_model, make_model
from converter.testing.rewrites import op_types

FLOAT, HALF, BRAIN = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
WEIGHT = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)
ROW = np.asarray([[0.1, -2.0, 3.0, 0.25]], np.float32)


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float32: valid, with the same inputs and outputs, and no half precision number inside."""
    before = [(v.name, v.type.SerializeToString()) for v in (*model.graph.input, *model.graph.output)]
    assert widen_halves(model)
    onnx.checker.check_model(model, full_check=True)
    assert [(v.name, v.type.SerializeToString()) for v in (*model.graph.input, *model.graph.output)] == before
    assert all(t.data_type not in (HALF, BRAIN) for t in tensors_of(model))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    assert all(v.type.tensor_type.elem_type not in (HALF, BRAIN) for v in inferred.graph.value_info)
    return model


def product(kind: int, weight: Array) -> onnx.ModelProto:
    """y = x W, all in one type."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    return make_model([node], [("x", kind, [1, 4])], [("y", kind, [1, 4])], initializers={"w": weight})


def test_a_float_model_is_left_alone() -> None:
    model = hybrid_model()
    before = model.SerializeToString(deterministic=True)
    assert not widen_halves(model)
    assert model.SerializeToString(deterministic=True) == before


def test_half_inputs_and_outputs_are_converted_at_the_border() -> None:
    model = widened(product(HALF, WEIGHT.astype(np.float16)))
    assert op_types(model) == ["Cast", "MatMul", "Cast"]
    (y,) = run_model(model, {"x": ROW.astype(np.float16)}).values()
    assert y.dtype == np.float16
    exact = ROW.astype(np.float16).astype(np.float64) @ WEIGHT.astype(np.float16)
    np.testing.assert_array_equal(y, exact.astype(np.float32).astype(np.float16))


@pytest.mark.parametrize("store", ["initializer", "Constant"])
@pytest.mark.parametrize("kind", [HALF, BRAIN])
def test_weights_behind_a_cast(store: str, kind: int) -> None:
    tensor = helper.make_tensor("w", kind, [4, 4], WEIGHT.ravel())
    nodes = [helper.make_node("Cast", ["w"], ["wide"], to=FLOAT), helper.make_node("MatMul", ["x", "wide"], ["y"])]
    model = make_model(nodes, [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])])
    if store == "Constant":
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    else:
        model.graph.initializer.append(tensor)
    exact = ROW @ numpy_helper.to_array(tensor).astype(np.float32)
    np.testing.assert_allclose(run_model(widened(model), {"x": ROW})["y"], exact, rtol=1e-6)


HALVES = numpy_helper.from_array(np.asarray([0.25], np.float16))
SHAPE = helper.make_node("Shape", ["x"], ["s"])
TYPED: list[tuple[list[onnx.NodeProto], list[float]]] = [
    ([helper.make_node("Cast", ["x"], ["h"], to=HALF)], [0.5, 2.0, 1.0, 3.0]),
    ([SHAPE, helper.make_node("ConstantOfShape", ["s"], ["h"], value=HALVES)], [0.5] * 4),
    ([helper.make_node("EyeLike", ["x"], ["h"], dtype=HALF)], [1.0, 0.0, 0.0, 0.0]),
]


@pytest.mark.parametrize(("nodes", "roots"), TYPED, ids=["Cast", "ConstantOfShape", "EyeLike"])
def test_types_that_attributes_name(nodes: list[onnx.NodeProto], roots: list[float]) -> None:
    nodes = [*nodes, helper.make_node("Sqrt", ["h"], ["r"]), helper.make_node("Cast", ["r"], ["y"], to=FLOAT)]
    model = make_model(nodes, [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])])
    model.graph.value_info.append(helper.make_tensor_value_info("h", HALF, [1, 4]))
    assert run_model(widened(model), {"x": np.asarray([[0.25, 4.0, 1.0, 9.0]], np.float32)})["y"].tolist() == [roots]


def test_branches_are_widened_too() -> None:
    inner = [helper.make_tensor_value_info("z", HALF, [1, 4])]
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "branch", [], inner)
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = make_model([node], [("x", HALF, [1, 4])], [("y", HALF, [1, 4])], initializers={"c": np.asarray(True)})
    result = widened(model)
    assert [n.input[0] for n in nodes_of(result.graph) if n.op_type == "Relu"] == ["x_float32"] * 2
    assert np.array_equal(run_model(result, {"x": ROW.astype(np.float16)})["y"], np.maximum(ROW, 0).astype(np.float16))


@pytest.mark.parametrize(
    ("outputs", "count"),
    [(["x"], 0), (["w"], 1), (["y", "y"], 2), (["y", "h"], 3)],
    ids=["an input", "a weight", "twice", "one that is read on"],
)
def test_outputs_of_every_kind_keep_their_type(outputs: list[str], count: int) -> None:
    nodes = [] if "y" not in outputs else [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]
    values = [(name, HALF, [1, 4]) for name in outputs]
    model = make_model(nodes, [("x", HALF, [1, 4])], values, initializers={"w": ROW.astype(np.float16)})
    assert widen_halves(model)
    assert [v.type.tensor_type.elem_type for v in model.graph.output] == [HALF] * len(outputs)
    assert op_types(model).count("Cast") == count
    expected = {"x": ROW, "w": ROW, "h": np.maximum(ROW, 0), "y": -np.maximum(ROW, 0)}
    got = run_model(model, {"x": ROW.astype(np.float16)})
    for name in outputs:
        assert np.array_equal(got[name], expected[name].astype(np.float16))


def test_names_that_are_taken_are_not_taken_twice() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["x_float32"]), helper.make_node("Add", ["x", "x_float32"], ["y"])]
    model = widened(make_model(nodes, [("x", HALF, [1, 4])], [("y", HALF, [1, 4])]))
    assert not run_model(model, {"x": ROW.astype(np.float16)})["y"].any()
