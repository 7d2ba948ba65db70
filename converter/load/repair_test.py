from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.errors import ModelError
from converter.load.repair import drop_wrong_types, repair, sort_nodes, spell_standard_domain
from converter.runtime.session import open_session, run_model
from converter.testing.models import hybrid_model, make_model
from converter.testing.rewrites import assert_equal_outputs, op_types

FLOAT = TensorProto.FLOAT
PATH = Path("in.onnx")
FEED = {"x": np.asarray([[-1.0, 2.0, -3.0, 4.0]], np.float32)}


def chain() -> onnx.ModelProto:
    """y = relu(x) + w, with w = 1."""
    nodes = [helper.make_node("Relu", ["x"], ["h"], name="relu"), helper.make_node("Add", ["h", "w"], ["y"], name="add")]
    return make_model(nodes, [("x", FLOAT, ["n", 4])], [("y", FLOAT, ["n", 4])], initializers={"w": np.ones(4, np.float32)})


def repaired(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model put right, valid, and with what the runtime made of it before."""
    before = onnx.ModelProto()
    before.CopyFrom(model)
    spell_standard_domain(PATH, model)
    repair(PATH, model)
    onnx.checker.check_model(model)
    drop_wrong_types(model)
    onnx.checker.check_model(model, full_check=True)
    assert_equal_outputs(before, model, FEED)
    return model


def imports(model: onnx.ModelProto) -> list[tuple[str, int]]:
    return [(o.domain, o.version) for o in model.opset_import]


def refusal(model: onnx.ModelProto) -> ModelError:
    with pytest.raises(ModelError) as caught:
        spell_standard_domain(PATH, model)
        repair(PATH, model)
    assert str(PATH) in caught.value.where and caught.value.hint
    return caught.value


# Opset imports


@pytest.mark.parametrize("domain", ["com.microsoft", "com.microsoft.nchwc", "ai.onnx.ml", "pkg.onnxscript.torch_lib"])
def test_imports_that_no_node_uses_are_dropped(domain: str) -> None:
    model = chain()
    model.opset_import.append(helper.make_opsetid(domain, 1))
    assert imports(repaired(model)) == [("", 17)]


@pytest.mark.parametrize("where", ["import", "node", "both", "twice"])
def test_the_standard_domain_may_be_spelled_out(where: str) -> None:
    model = chain()
    if where in ("import", "both"):
        model.opset_import[0].domain = "ai.onnx"
    if where in ("node", "both"):
        model.graph.node[0].domain = "ai.onnx"
    if where == "twice":
        model.opset_import.append(helper.make_opsetid("ai.onnx", 17))
    model = repaired(model)
    assert imports(model) == [("", 17)] and [n.domain for n in model.graph.node] == ["", ""]


def test_two_standard_opsets_contradict_each_other() -> None:
    model = chain()
    model.opset_import.append(helper.make_opsetid("ai.onnx", 13))
    assert "opset 17 and of opset 13" in refusal(model).what


# Order


def test_nodes_are_sorted() -> None:
    model = chain()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert op_types(repaired(model)) == ["Relu", "Add"]


def test_sorted_nodes_keep_their_order() -> None:
    model = hybrid_model()
    before = [n.name for n in model.graph.node]
    sort_nodes(PATH, model)
    assert [n.name for n in model.graph.node] == before


def test_nodes_move_no_further_than_they_must() -> None:
    nodes = [
        helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node("Add", ["late", "a"], ["b"]),
        helper.make_node("Abs", ["x"], ["c"]),
        helper.make_node("Relu", ["x"], ["late"]),
        helper.make_node("Sum", ["b", "c"], ["y"]),
    ]
    model = repaired(make_model(nodes, [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])]))
    assert op_types(model) == ["Neg", "Abs", "Relu", "Add", "Sum"]


def choice(reads: str) -> onnx.NodeProto:
    """y = relu(reads), inside of a branch."""
    outputs = [helper.make_tensor_value_info("z", FLOAT, [1, 4])]
    branch = helper.make_graph([helper.make_node("Relu", ["inner"], ["z"]), helper.make_node("Neg", [reads], ["inner"])], "", [], outputs)
    return helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)


def test_what_a_branch_reads_is_computed_before_and_the_branch_is_sorted_itself() -> None:
    nodes = [choice("h"), helper.make_node("Abs", ["x"], ["h"])]
    model = make_model(nodes, [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])], initializers={"c": np.asarray(True)})
    repair(PATH, model)
    assert op_types(model) == ["Abs", "If"]
    for attribute in model.graph.node[1].attribute:
        assert [n.op_type for n in attribute.g.node] == ["Neg", "Relu"] and attribute.g.name
    assert np.array_equal(run_model(model, FEED)["y"], np.zeros((1, 4), np.float32))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_cycle_is_named(length: int) -> None:
    nodes = [helper.make_node("Add", ["x", f"t{(i + 1) % length}"], [f"t{i}"], name=f"node{i}") for i in range(length)]
    nodes.append(helper.make_node("Relu", ["t0"], ["y"], name="behind"))
    error = refusal(make_model(nodes, [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])]))
    assert "cycle" in error.what and "'Add'" in error.what and "node 'node" in error.where


# Names


def test_a_graph_without_a_name_gets_one() -> None:
    model = chain()
    model.graph.name = ""
    assert repaired(model).graph.name


def test_the_last_initializer_of_a_name_counts() -> None:
    model = chain()
    model.graph.initializer.append(numpy_helper.from_array(np.full(4, 3, np.float32), "w"))
    model = repaired(model)
    assert [(i.name, numpy_helper.to_array(i)[0]) for i in model.graph.initializer] == [("w", 3.0)]


def test_nodes_of_one_name_are_told_apart() -> None:
    """The runtime refuses them, for no reason that the user could care about."""
    model = chain()
    model.graph.node[1].name = "relu"
    spell_standard_domain(PATH, model)
    repair(PATH, model)
    assert [n.name for n in model.graph.node] == ["relu", ""]
    open_session(model)


def test_outputs_that_an_operator_must_have_get_names() -> None:
    """The runtime's Split would write to where there is nothing."""
    nodes = [helper.make_node("Split", ["x"], ["", "y"], axis=1, num_outputs=2, name="halves")]
    model = make_model(nodes, [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 2])], opset=18)
    repair(PATH, model)
    first, second = model.graph.node[0].output
    assert first and first != second == "y"
    assert np.array_equal(run_model(model, FEED)["y"], FEED["x"][:, 2:])


def test_outputs_that_are_optional_stay_without_names() -> None:
    node = helper.make_node("LayerNormalization", ["x", "s"], ["y", "", "d"], axis=-1)
    scale = {"s": np.ones(4, np.float32)}
    model = make_model([node], [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4]), ("d", FLOAT, [1, 1])], initializers=scale)
    assert list(repaired(model).graph.node[0].output) == ["y", "", "d"]


# What is stated about tensors


def test_weights_among_the_inputs_are_constants() -> None:
    model = chain()
    model.graph.input.append(onnx.ValueInfoProto(name="w"))
    assert [i.name for i in repaired(model).graph.input] == ["x"]


def test_old_files_may_keep_weights_out_of_the_inputs() -> None:
    model = chain()
    model.ir_version = 3
    assert repaired(model).ir_version == 4


def test_sizes_below_zero_are_open() -> None:
    model = chain()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    size = repaired(model).graph.input[0].type.tensor_type.shape.dim[0]
    assert not size.HasField("dim_value") and not size.HasField("dim_param")


def stated(*values: onnx.ValueInfoProto) -> list[tuple[str, list[int | str]]]:
    """What remains of the stated types of a chain's tensors."""
    model = chain()
    model.graph.value_info.extend(values)
    repair(PATH, model)
    drop_wrong_types(model)
    assert np.array_equal(run_model(model, FEED)["y"], run_model(chain(), FEED)["y"])
    return [(v.name, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]) for v in model.graph.value_info]


def tensor(name: str, shape: list[int | str], kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.mark.parametrize(
    "wrong",
    [
        tensor("h", ["n", 4], 99),
        tensor("h", ["n", 4], 0),
        tensor("h", ["n", 4], TensorProto.INT64),
        tensor("h", ["n", 5]),
        tensor("h", [4]),
        tensor("h", ["n", -4]),
        onnx.ValueInfoProto(name="h"),
        tensor("nobody makes this", ["n", 4]),
        tensor("x", ["n", 5]),
        tensor("y", ["n", 5]),
        tensor("w", [5]),
        tensor("", ["n", 4]),
        helper.make_tensor_sequence_value_info("h", FLOAT, [4]),
    ],
    ids=["unknown type", "no type", "other type", "size", "rank", "negative", "empty", "nobody", "input", "output", "weight", "", "list"],
)
def test_types_that_are_wrong_are_dropped(wrong: onnx.ValueInfoProto) -> None:
    assert stated(wrong) == []


def test_types_that_agree_are_kept_once() -> None:
    assert stated(tensor("h", ["n", 4]), tensor("h", ["n", 4])) == [("h", ["n", 4])]
    assert stated(tensor("h", ["batch", 4])) == [("h", ["batch", 4])]


def test_types_that_inference_cannot_find_are_kept() -> None:
    nodes = [helper.make_node("Reshape", ["x", "target"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    inputs = [("x", FLOAT, [1, 4]), ("target", TensorProto.INT64, [2])]
    model = make_model(nodes, inputs, [("y", FLOAT, ["a", "b"])])
    model.graph.value_info.append(tensor("h", [2, 2]))
    drop_wrong_types(model)
    assert [v.name for v in model.graph.value_info] == ["h"]
