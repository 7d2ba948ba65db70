from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converter.canonicalise.standard import to_canonical_opset
from converter.errors import ModelError
from converter.load.control_flow import holds_control_flow, refuse_lasting_control_flow
from converter.runtime.session import run_model
from converter.testing.models import Values, make_model
from converter.testing.rewrites import op_types

FLOAT = TensorProto.FLOAT
PATH = Path("in.onnx")


def choice(condition: str) -> onnx.NodeProto:
    """y = 2 x if condition else relu(x)."""

    def branch(name: str, node: onnx.NodeProto, **constants: float) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(node.output[0], FLOAT, None)
        initializers = [onnx.numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in constants.items()]
        return helper.make_graph([node], name, [], [output], initializers)

    then = branch("then", helper.make_node("Mul", ["x", "two"], ["z1"]), two=2.0)
    otherwise = branch("else", helper.make_node("Relu", ["x"], ["z2"]))
    return helper.make_node("If", [condition], ["y"], name="/choice/If", then_branch=then, else_branch=otherwise)


def decided_by_shape(axis: int, sizes: list[int | str], opset: int = 17) -> onnx.ModelProto:
    """y = 2 x if the axis has three entries else relu(x)."""
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Gather", ["s", "axis"], ["d"], axis=0)]
    nodes += [helper.make_node("Equal", ["d", "three"], ["c"]), choice("c")]
    constants = {"axis": np.asarray(axis), "three": np.asarray(3)}
    return make_model(nodes, [("x", FLOAT, sizes)], [("y", FLOAT, sizes)], initializers=constants, opset=opset)


def decided_by_data() -> onnx.ModelProto:
    nodes = [helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0), helper.make_node("Cast", ["s"], ["c"], to=TensorProto.BOOL)]
    return make_model([*nodes, choice("c")], [("x", FLOAT, [2, 3])], [("y", FLOAT, [2, 3])])


def loop() -> onnx.ModelProto:
    def value(name: str, kind: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, [])

    body = [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["v", "v"], ["w"])]
    inside = [value("i", TensorProto.INT64), value("go", TensorProto.BOOL), value("v", FLOAT)]
    graph = helper.make_graph(body, "body", inside, [value("go_on", TensorProto.BOOL), value("w", FLOAT)])
    node = helper.make_node("Loop", ["n", "c", "x"], ["y"], name="/choice/Loop", body=graph)
    inputs: Values = [("x", FLOAT, []), ("n", TensorProto.INT64, []), ("c", TensorProto.BOOL, [])]
    return make_model([node], inputs, [("y", FLOAT, [])])


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 20, 21, 23])
@pytest.mark.parametrize(("axis", "op_type"), [(1, "Mul"), (2, "Relu")])
def test_what_fixed_sizes_decide_is_decided_once_and_for_all(axis: int, op_type: str, opset: int) -> None:
    model = decided_by_shape(axis, [2, 3, 4], opset)
    before = model.SerializeToString()
    refuse_lasting_control_flow(PATH, model)
    assert model.SerializeToString() == before
    canonical = to_canonical_opset(model)
    assert op_types(canonical) == [op_type]
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    assert np.array_equal(run_model(canonical, {"x": x})["y"], run_model(model, {"x": x})["y"])


def test_an_open_batch_does_not_keep_other_sizes_from_deciding() -> None:
    refuse_lasting_control_flow(PATH, decided_by_shape(1, ["n", 3, 4]))


@pytest.mark.parametrize("model", [decided_by_shape(0, ["n", 3, 4]), decided_by_data(), loop()], ids=["open size", "data", "loop"])
def test_what_only_the_run_decides_is_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(ModelError) as caught:
        refuse_lasting_control_flow(PATH, model)
    assert "holds a graph of its own" in caught.value.what and "/choice/" in caught.value.where
    assert "fixed input sizes" in caught.value.hint and "non-maximum suppression" in caught.value.hint


def test_branches_that_do_not_fit_are_refused() -> None:
    """Nothing but the runtime looks at them: the checker does not, and onnxsim would end the process."""
    model = decided_by_data()
    for attribute in model.graph.node[-1].attribute:
        attribute.g.output.append(attribute.g.output[0])
    with pytest.raises(ModelError, match="does not load"):
        refuse_lasting_control_flow(PATH, model)


def test_graphs_inside_of_nodes_are_seen() -> None:
    found = holds_control_flow(decided_by_data())
    assert found is not None and found.op_type == "If"
    assert holds_control_flow(make_model([], [], [])) is None
