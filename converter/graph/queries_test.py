from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from converter.graph.queries import attributes, constant, consumers, data_inputs, is_float, is_graph_output, scalar, sole_consumer
from converter.testing.rewrites import Draft, weights


def conv_and_relu() -> ir.Graph:
    """y = Relu(Conv(x)); z = Neg(Conv(x)), both outputs."""
    draft = Draft(x=(1, 2, 4, 4))
    features = draft.add("Conv", "x", weights(3, 2, 3, 3), pads=[1, 1, 1, 1], auto_pad="NOTSET")
    model = draft.model(draft.add("Relu", features), draft.add("Neg", features))
    read: ir.Model = ir.from_proto(model)
    return read.graph


def test_initializers_are_constants_and_computed_tensors_are_not() -> None:
    conv = conv_and_relu()[0]
    found = constant(conv.inputs[1])
    assert found is not None
    np.testing.assert_array_equal(found, weights(3, 2, 3, 3))
    assert constant(conv.inputs[0]) is None
    assert constant(conv.outputs[0]) is None
    assert constant(None) is None


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({"value": onnx.numpy_helper.from_array(np.asarray([1.5, 2.5], np.float32))}, np.asarray([1.5, 2.5], np.float32)),
        ({"value_float": 1.5}, np.asarray(1.5, np.float32)),
        ({"value_floats": [1.5, 2.5]}, np.asarray([1.5, 2.5], np.float32)),
        ({"value_int": 3}, np.asarray(3, np.int64)),
        ({"value_ints": [3, 4]}, np.asarray([3, 4], np.int64)),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else None,
)
def test_constant_nodes_of_every_kind(attrs: dict[str, Any], expected: np.ndarray) -> None:
    node: ir.Node = ir.from_proto(helper.make_node("Constant", [], ["c"], **attrs))
    found = constant(node.outputs[0])
    assert found is not None
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_an_initializer_that_can_be_fed_is_no_constant() -> None:
    draft = Draft(x=(2, 3))
    model = draft.model(draft.add("Add", "x", 1.0))
    model.graph.input.append(helper.make_tensor_value_info("constant_0", 1, ()))
    assert constant(ir.from_proto(model).graph[0].inputs[1]) is None


def test_scalars_have_one_element() -> None:
    draft = Draft(x=(2, 2))
    graph = ir.from_proto(
        draft.model(draft.add("Clip", "x", 0.25), draft.add("Add", "x", weights(1, 1)), draft.add("Mul", "x", weights(2)))
    ).graph
    assert scalar(graph[0].inputs[1]) == 0.25
    assert scalar(graph[1].inputs[1]) == float(weights(1, 1)[0, 0])
    assert scalar(graph[2].inputs[1]) is None
    assert scalar(graph[2].inputs[0]) is None


def test_attributes_are_plain_values() -> None:
    assert attributes(conv_and_relu()[0]) == {"pads": [1, 1, 1, 1], "auto_pad": "NOTSET"}
    tensor = helper.make_tensor("t", 7, [1], [5])
    (value,) = attributes(ir.from_proto(helper.make_node("ConstantOfShape", ["x"], ["y"], value=tensor))).values()
    np.testing.assert_array_equal(value, [5])


def test_consumers_and_outputs() -> None:
    graph = conv_and_relu()
    conv, relu, neg = graph
    assert consumers(conv.outputs[0]) == [(relu, 0), (neg, 0)]
    assert sole_consumer(conv.outputs[0]) is None
    assert sole_consumer(graph.inputs[0]) is conv
    assert sole_consumer(relu.outputs[0]) is None
    assert is_graph_output(relu.outputs[0])
    assert not is_graph_output(conv.outputs[0])


def test_a_node_that_reads_a_tensor_twice_is_not_its_sole_use() -> None:
    draft = Draft(x=(2, 2))
    graph = ir.from_proto(draft.model(draft.add("Mul", "x", "x"))).graph
    assert sole_consumer(graph.inputs[0]) is None


def test_a_model_output_has_no_sole_consumer() -> None:
    draft = Draft(x=(2, 2))
    inner = draft.add("Abs", "x")
    graph = ir.from_proto(draft.model(draft.add("Neg", inner), inner)).graph
    assert sole_consumer(graph[0].outputs[0]) is None


def test_data_inputs_are_computed_floats() -> None:
    draft = Draft(x=(2, 6))
    shape = draft.add("Shape", "x")
    graph = ir.from_proto(draft.model(draft.add("Add", draft.add("Reshape", "x", shape), 1.0))).graph
    assert [(i, v.name) for i, v in data_inputs(graph[1])] == [(0, "x")]
    assert [(i, v.name) for i, v in data_inputs(graph[2])] == [(0, "Reshape_1_out")]
    assert not is_float(graph[0].outputs[0])
    assert not is_float(None)
