"""The simulation's float operators are the runtime's own, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import helper

from converter.runtime.session import open_session, run_session
from converter.testing.sketch import Sketch, feeds_for
from converter.torch_backend.ops import UnknownOperatorError
from converter.torch_backend.runtime_kernels import runtime_operator
from converter.verify.simulation import simulate_all


def chain(activation: str) -> ir.Model:
    """Convolutions with so many channels that the runtime rearranges their weights, an activation between them."""
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 16, 12, 12), 16, outputs=32)
    return sketch.model(sketch.conv(sketch.add(activation, x), 32, outputs=16))


@pytest.mark.parametrize("activation", ["HardSwish", "HardSigmoid", "Sigmoid", "Softmax", "Relu"])
def test_a_float_network_gives_the_same_bits(activation: str) -> None:
    model = chain(activation)
    (feed,) = feeds_for(model, 1)
    session = open_session(ir.to_proto(model), threads=1)
    (expected,) = run_session(session, feed).values()
    got = simulate_all(model, None, feed, {})[str(model.graph.outputs[0].name)]
    np.testing.assert_array_equal(got, expected)


def test_convolutions_of_equal_shape_keep_their_own_weights() -> None:
    sketch = Sketch()
    x = sketch.input("x", 1, 8, 6, 6)
    model = sketch.model(sketch.conv(sketch.conv(x, 8, outputs=8), 8, outputs=8))
    (feed,) = feeds_for(model, 1)
    (expected,) = run_session(open_session(ir.to_proto(model), threads=1), feed).values()
    got = simulate_all(model, None, feed, {})[str(model.graph.outputs[0].name)]
    np.testing.assert_array_equal(got, expected)


def recurrent(op_type: str, gates: int) -> ir.Model:
    sketch = Sketch()
    weights = [sketch.normal(1, gates * 7, 5), sketch.normal(1, gates * 7, 7)]
    x, hidden = sketch.input("x", 6, 1, 5), sketch.split(op_type, "x", *weights, outputs=2, hidden_size=7)
    assert x == "x"
    return sketch.model(*hidden)


@pytest.mark.parametrize(("op_type", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_give_the_same_bits_at_all_outputs(op_type: str, gates: int) -> None:
    model = recurrent(op_type, gates)
    (feed,) = feeds_for(model, 1)
    expected = run_session(open_session(ir.to_proto(model), threads=1), feed)
    got = simulate_all(model, None, feed, {})
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)


def operator(op_type: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> list[Any]:
    tensors = [None if x is None else torch.from_numpy(np.asarray(x)) for x in inputs]
    return [y.numpy() for y in runtime_operator(op_type, tensors, attributes, outputs)]


NUMBERS = np.asarray([[3.0, -1.0, 7.0, 5.0]], np.float32)


def test_several_outputs_have_types_of_their_own() -> None:
    values, indices = operator("TopK", NUMBERS, np.asarray([2]), outputs=2)
    np.testing.assert_array_equal(values, np.asarray([[7, 5]], np.float32))
    np.testing.assert_array_equal(indices, np.asarray([[2, 3]], np.int64))
    assert (values.dtype, indices.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("outputs", [1, 2])
def test_as_many_outputs_are_computed_as_the_node_has(outputs: int) -> None:
    made = operator("MaxPool", NUMBERS[None], outputs=outputs, kernel_shape=[2], strides=[2])
    assert [y.tolist() for y in made] == [[[[3.0, 7.0]]], [[[0, 2]]]][:outputs]


def test_optional_inputs_may_be_left_out_in_the_middle() -> None:
    (clipped,) = operator("Clip", NUMBERS, None, np.asarray(4, np.float32))
    np.testing.assert_array_equal(clipped, np.asarray([[3, -1, 4, 4]], np.float32))


def test_no_box_passes_a_threshold_and_the_result_is_empty() -> None:
    boxes, scores = np.zeros((1, 3, 4), np.float32), np.zeros((1, 1, 3), np.float32)
    (kept,) = operator("NonMaxSuppression", boxes, scores, np.asarray([5]), np.asarray([0.5], np.float32), np.asarray([0.9], np.float32))
    assert kept.shape == (0, 3) and kept.dtype == np.int64
    (nothing,) = operator("Relu", np.zeros((0, 4), np.float32))
    assert nothing.shape == (0, 4)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_numbers_of_every_type_come_back_as_they_were_given(dtype: type) -> None:
    (same,) = operator("Reshape", np.asarray([1, 2, 3, 4], dtype), np.asarray([2, 2]))
    np.testing.assert_array_equal(same, np.asarray([[1, 2], [3, 4]], dtype))
    assert same.dtype == dtype


def test_what_is_not_finite_is_left_to_the_runtime() -> None:
    (found,) = operator("IsNaN", np.asarray([np.nan, np.inf, 0], np.float32))
    np.testing.assert_array_equal(found, [True, False, False])
    (softmax,) = operator("Softmax", np.asarray([[0.0, -np.inf]], np.float32))
    np.testing.assert_array_equal(softmax, np.asarray([[1, 0]], np.float32))


def test_a_scalar_stays_a_scalar() -> None:
    (root,) = operator("Sqrt", np.asarray(4.0, np.float32))
    assert root.shape == () and root == 2.0


def test_attributes_may_be_tensors_texts_and_empty_lists() -> None:
    (filled,) = operator("ConstantOfShape", np.asarray([2]), value=np.asarray([7], np.int64))
    np.testing.assert_array_equal(filled, np.asarray([7, 7], np.int64))
    (joined,) = operator("Einsum", NUMBERS, NUMBERS, equation="bi,bi->b")
    np.testing.assert_array_equal(joined, np.asarray([84], np.float32))
    (same,) = operator("ReduceSum", NUMBERS, np.asarray([], np.int64), noop_with_empty_axes=1)
    np.testing.assert_array_equal(same, NUMBERS)
    (transposed,) = operator("Transpose", np.asarray(2.0, np.float32), perm=[])
    assert transposed == 2.0


def test_two_attributes_of_many_equal_numbers_are_told_apart() -> None:
    """Written out, an array of more than a thousand numbers is abbreviated in the middle."""
    sessions: dict[object, Any] = {}
    arrays = [np.zeros(2000, np.float32), np.zeros(2000, np.float32)]
    arrays[1][1000] = 1.0
    results = [runtime_operator("Constant", [], {"value": a}, sessions=sessions)[0].numpy() for a in arrays]
    assert [float(r.sum()) for r in results] == [0.0, 1.0]


def test_a_sequence_of_tensors_is_a_list() -> None:
    (parts,) = runtime_operator("SplitToSequence", [torch.from_numpy(NUMBERS)], {"axis": 1})
    assert [p.shape for p in parts] == [(1, 1)] * 4
    (joined,) = runtime_operator("ConcatFromSequence", [parts[:2]], {"axis": 0})
    np.testing.assert_array_equal(joined.numpy(), np.asarray([[3], [-1]], np.float32))


def test_a_session_is_opened_once_for_one_shape_and_one_content_of_constants() -> None:
    sessions: dict[object, Any] = {}
    x, weights = torch.ones(1, 4), [torch.ones(4, 2), torch.zeros(4, 2)]
    results = [runtime_operator("MatMul", [x, w], {}, constants=[1], sessions=sessions)[0] for w in (*weights, *weights)]
    assert len(sessions) == 2
    assert [float(r.sum()) for r in results] == [8.0, 0.0, 8.0, 0.0]
    for w in weights:
        runtime_operator("MatMul", [x, w], {}, sessions=sessions)
    assert len(sessions) == 3


def test_an_operator_that_holds_a_graph_is_named() -> None:
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "branch", [], [])
    with pytest.raises(UnknownOperatorError, match="'If', which holds a graph"):
        runtime_operator("If", [torch.tensor(True)], {"then_branch": branch, "else_branch": branch})


def test_what_the_runtime_refuses_is_named() -> None:
    with pytest.raises(UnknownOperatorError, match="'Add' by itself"):
        runtime_operator("Add", [torch.ones(3), torch.ones(4)], {})
    with pytest.raises(UnknownOperatorError, match="'Add' with rounds=1"):
        runtime_operator("Add", [torch.ones(3), torch.ones(3)], {"rounds": 1})
