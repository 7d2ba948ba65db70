from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper

from converter.errors import ModelError
from converter.load.local_functions import drop_unused_functions, inline_functions
from converter.testing.models import make_model
from converter.testing.rewrites import assert_equal_outputs

PATH = Path("in.onnx")
FEED = {"x": np.asarray([[[-1.0, 2.0], [3.0, -4.0]]], np.float32)}


def function(
    name: str, *body: NodeProto, opset: int = 17, domain: str = "mine", others: Sequence[str] = (), **fields: list[str]
) -> FunctionProto:
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(other, 1) for other in others)]
    return helper.make_function(domain, name, ["a"], ["b"], list(body), imports, **fields)


def calling(*functions: FunctionProto, calls: Sequence[NodeProto] = (), opset: int = 17) -> onnx.ModelProto:
    """y = F(x), or what the calls say."""
    nodes = list(calls) or [helper.make_node("F", ["x"], ["y"], domain="mine", name="call")]
    model = make_model(nodes, [("x", TensorProto.FLOAT, [1, 2, 2])], [("y", TensorProto.FLOAT, [1, 2, 2])], opset=opset)
    model.functions.extend(functions)
    model.opset_import.extend(helper.make_opsetid(domain, 1) for domain in sorted({f.domain for f in functions}))
    model.ir_version = 10
    return model


def inlined(model: onnx.ModelProto) -> list[str]:
    """Operators of the model with its functions inlined, which computes the same."""
    result = inline_functions(PATH, model)
    onnx.checker.check_model(result, full_check=True)
    assert not result.functions
    assert_equal_outputs(model, result, FEED)
    names = [n.name for n in result.graph.node if n.name]
    assert len(names) == len(set(names))
    return [n.op_type for n in result.graph.node]


def refusal(model: onnx.ModelProto) -> ModelError:
    with pytest.raises(ModelError) as caught:
        inline_functions(PATH, model)
    assert str(PATH) in caught.value.where and caught.value.hint
    return caught.value


def test_a_function_becomes_its_nodes() -> None:
    body = [helper.make_node("Relu", ["a"], ["t"], name="inner"), helper.make_node("Neg", ["t"], ["b"], name="outer")]
    assert inlined(calling(function("F", *body))) == ["Relu", "Neg"]


def test_each_call_has_names_of_its_own() -> None:
    body = [helper.make_node("Relu", ["a"], ["t"], name="inner"), helper.make_node("Neg", ["t"], ["b"], name="outer")]
    calls = [helper.make_node("F", ["x"], ["h"], domain="mine"), helper.make_node("F", ["h"], ["y"], domain="mine")]
    assert inlined(calling(function("F", *body), calls=calls)) == ["Relu", "Neg"] * 2


def test_functions_may_call_functions_of_other_domains() -> None:
    outer = function("F", helper.make_node("G", ["a"], ["b"], domain="theirs"), others=["theirs"])
    inner = function("G", helper.make_node("Relu", ["a"], ["b"]), domain="theirs")
    assert inlined(calling(outer, inner)) == ["Relu"]


def test_attributes_are_passed_on() -> None:
    node = helper.make_node("LeakyRelu", ["a"], ["b"])
    node.attribute.append(AttributeProto(name="alpha", ref_attr_name="slope", type=AttributeProto.FLOAT))
    call = helper.make_node("F", ["x"], ["y"], domain="mine", slope=0.5)
    assert inlined(calling(function("F", node, attributes=["slope"]), calls=[call])) == ["LeakyRelu"]


@pytest.mark.parametrize(("op_type", "opset"), [("Softmax", 13), ("Relu", 13), ("Add", 7), ("Softmax", 20)])
def test_an_operator_that_means_the_same_in_the_opset_of_the_model_stays(op_type: str, opset: int) -> None:
    node = helper.make_node(op_type, ["a"] * (2 if op_type == "Add" else 1), ["b"])
    model = calling(function("F", node, opset=opset))
    result = inline_functions(PATH, model)
    assert [n.op_type for n in result.graph.node] == [op_type]
    plain = make_model([helper.make_node(op_type, ["x"] * len(node.input), ["y"])], [("x", 1, [1, 2, 2])], [("y", 1, [1, 2, 2])])
    assert_equal_outputs(plain, result, FEED)


def test_an_operator_that_means_something_else_in_the_opset_of_the_model_is_refused() -> None:
    """Before opset 13, Softmax took everything from its axis on for one row."""
    error = refusal(calling(function("F", helper.make_node("Softmax", ["a"], ["b"], name="the node"), opset=11)))
    assert "'F' is of opset 11, the model of 17" in error.what and "'Softmax'" in error.what and "the node" in error.where


def test_functions_that_call_themselves_are_refused() -> None:
    recursive = function("F", helper.make_node("F", ["a"], ["b"], domain="mine"), others=["mine"])
    refusal(calling(recursive))


def test_a_call_with_too_many_operands_is_refused() -> None:
    call = helper.make_node("F", ["x", "x"], ["y"], domain="mine")
    refusal(calling(function("F", helper.make_node("Relu", ["a"], ["b"])), calls=[call]))


def test_functions_that_nobody_calls_are_dropped() -> None:
    used = function("F", helper.make_node("G", ["a"], ["b"], domain="mine"), others=["mine"])
    model = calling(used, function("G", helper.make_node("Relu", ["a"], ["b"])), function("H", helper.make_node("Wobble", ["a"], ["b"])))
    drop_unused_functions(model)
    assert [f.name for f in model.functions] == ["F", "G"]


def test_functions_that_only_branches_call_are_kept() -> None:
    branch = helper.make_graph(
        [helper.make_node("F", ["x"], ["z"], domain="mine")], "branch", [], [helper.make_tensor_value_info("z", 1, [1, 2, 2])]
    )
    model = calling(function("F", helper.make_node("Relu", ["a"], ["b"])))
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(True), "c"))
    drop_unused_functions(model)
    assert inlined(model) == ["If"]
