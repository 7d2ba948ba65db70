from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.graph.builder import GraphBuilder, remove_dead
from converter.testing.rewrites import Draft, assert_equal_outputs, op_types, random_feed


def two_nodes() -> tuple[onnx.ModelProto, ir.Model]:
    """y = Neg(Abs(x)), with a constant that nothing reads."""
    draft = Draft(x=("n", 4))
    draft.constant(1.0)
    model = draft.model(draft.add("Neg", draft.add("Abs", "x", name="abs"), name="neg"))
    return model, ir.from_proto(model)


@pytest.mark.parametrize("wish", ["x", "abs", "abs_out", "constant_0"])
def test_a_name_is_new_among_inputs_nodes_tensors_and_constants(wish: str) -> None:
    _, model = two_nodes()
    assert GraphBuilder(model.graph).unique(wish) == f"{wish}_2"


def test_a_name_that_is_free_is_granted_and_counting_goes_on() -> None:
    _, model = two_nodes()
    builder = GraphBuilder(model.graph, taken=["elsewhere"])
    assert [builder.free(wish) for wish in ("fresh", "fresh", "elsewhere")] == ["fresh", "fresh", "elsewhere_2"]
    assert [str(builder.initializer("w", np.zeros(1)).name) for _ in range(3)] == ["w", "w_2", "w_3"]


def test_names_of_what_was_removed_or_renamed_are_free_again() -> None:
    _, model = two_nodes()
    builder, neg = GraphBuilder(model.graph), model.graph[1]
    new = builder.add("Abs", [model.graph.inputs[0]], name="new", before=neg)
    builder.rename(new, "other")
    assert [builder.free(name) for name in ("new", "new_output", "other")] == ["new_2", "new_output", "other_2"]
    builder.remove([model.graph[1]])
    assert [builder.free(name) for name in ("new", "other")] == ["new", "other"]


def test_an_initializer_keeps_shape_type_and_values() -> None:
    _, model = two_nodes()
    value = GraphBuilder(model.graph).initializer("w", np.arange(6, dtype=np.float32).reshape(2, 3).T)
    assert value.shape == ir.Shape([3, 2])
    assert value.dtype == ir.DataType.FLOAT
    assert value.const_value is not None
    np.testing.assert_array_equal(value.const_value.numpy(), np.asarray([[0, 3], [1, 4], [2, 5]], np.float32))
    assert GraphBuilder(model.graph).initializer("axes", np.asarray([1])).dtype == ir.DataType.INT64


@pytest.mark.parametrize(
    ("where", "order"),
    [({"before": 1}, ["Abs", "Relu", "Neg"]), ({"after": 0}, ["Abs", "Relu", "Neg"]), ({}, ["Abs", "Neg", "Relu"])],
    ids=["before", "after", "last"],
)
def test_a_node_is_put_in_its_place_and_typed_like_another_tensor(where: dict[str, int], order: list[str]) -> None:
    _, model = two_nodes()
    like, nodes = model.graph[1].outputs[0], {key: model.graph[index] for key, index in where.items()}
    output = GraphBuilder(model.graph).add("Relu", [model.graph.inputs[0]], name="new", like=like, **nodes)  # type: ignore[arg-type]
    assert [n.op_type for n in model.graph] == order
    assert (output.name, output.dtype, output.shape) == ("new_output", ir.DataType.FLOAT, like.shape)


def test_the_new_tensor_takes_place_name_and_readers() -> None:
    before, model = two_nodes()
    graph, builder = model.graph, GraphBuilder(model.graph)
    new = builder.add("Abs", [graph.inputs[0]], name="other", like=graph[0].outputs[0], before=graph[1])
    builder.replace(graph[0].outputs[0], new, [graph[0]])
    remove_dead(model)
    after = ir.to_proto(model)
    assert op_types(after) == op_types(before)
    assert list(after.graph.node[0].output) == ["abs_out"]
    assert_equal_outputs(before, after, random_feed(before))


def test_an_output_of_the_model_keeps_its_name_and_its_open_shape() -> None:
    before, model = two_nodes()
    graph, builder = model.graph, GraphBuilder(model.graph)
    new = builder.add(
        "Mul", [graph[0].outputs[0], builder.initializer("minus", np.asarray([-1], np.float32))], name="other", before=graph[1]
    )
    builder.replace(graph[1].outputs[0], new, [graph[1]])
    after = ir.to_proto(model)
    assert after.graph.output[0] == before.graph.output[0]
    assert_equal_outputs(before, after, random_feed(before))


def test_a_node_that_is_still_read_is_not_removed() -> None:
    _, model = two_nodes()
    graph, builder = model.graph, GraphBuilder(model.graph)
    new = builder.add("Neg", [graph[0].outputs[0]], name="other", like=graph[1].outputs[0], before=graph[1])
    with pytest.raises(ValueError, match="still being used"):
        builder.replace(graph[1].outputs[0], new, [graph[0], graph[1]])


def test_what_nothing_reads_is_dropped() -> None:
    _, model = two_nodes()
    GraphBuilder(model.graph).add("Relu", [model.graph.inputs[0]], name="dead", before=model.graph[1])
    assert list(model.graph.initializers) == ["constant_0"]
    remove_dead(model)
    assert [n.op_type for n in model.graph] == ["Abs", "Neg"]
    assert list(model.graph.initializers) == []
