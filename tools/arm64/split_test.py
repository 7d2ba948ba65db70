from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from converter.runtime.session import open_session, run_model, run_session
from converter.testing.models import hybrid_model, make_model
from tools.arm64.split import empty_model, pieces, showing_all

IMAGE = {"image": np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)}


@pytest.fixture(scope="module")
def optimised(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """The graph that the runtime makes of the hybrid network, with operators of its own."""
    path = tmp_path_factory.mktemp("split") / "optimised.onnx"
    open_session(hybrid_model(), optimised_path=path)
    return onnx.load(path)


def test_every_tensor_becomes_an_output(optimised: onnx.ModelProto) -> None:
    shown = run_model(showing_all(optimised), IMAGE, optimise=False)
    assert set(shown) == {name for node in optimised.graph.node for name in node.output if name}
    np.testing.assert_array_equal(shown["logits"], run_model(optimised, IMAGE, optimise=False)["logits"])
    assert len(optimised.graph.output) == 1  # a copy was changed, not the model


def test_the_pieces_compute_the_whole(optimised: onnx.ModelProto) -> None:
    """Each piece, on the tensors of the whole, gives the tensors of the whole: nothing it needs was left out."""
    tensors = IMAGE | run_model(showing_all(optimised), IMAGE, optimise=False)
    found = list(pieces(optimised, tensors))
    assert [part.op_type for part in found] == [node.op_type for node in optimised.graph.node]
    for part in found:
        session = open_session(part.model, optimise=False)
        got = run_session(session, {value.name: tensors[value.name] for value in session.get_inputs()})
        for name, value in got.items():
            np.testing.assert_allclose(value, tensors[name], rtol=1e-5, atol=1e-6)
    assert "float32[1, 10]" in {part.result for part in found}


def test_a_piece_has_only_the_constants_that_it_reads(optimised: onnx.ModelProto) -> None:
    tensors = IMAGE | run_model(showing_all(optimised), IMAGE, optimise=False)
    for part in pieces(optimised, tensors):
        (node,) = part.model.graph.node
        assert {constant.name for constant in part.model.graph.initializer} <= set(node.input)
        assert part.model.opset_import == optimised.opset_import


def test_what_a_subgraph_reads_comes_along() -> None:
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, [2])
    branches = [helper.make_graph([helper.make_node(op, ["x", "c"], ["z"])], op, [], [value]) for op in ("Add", "Mul")]
    node = helper.make_node("If", ["flag"], ["y"], then_branch=branches[0], else_branch=branches[1])
    model = make_model(
        [node],
        [("flag", TensorProto.BOOL, []), ("x", TensorProto.FLOAT, [2])],
        [("y", TensorProto.FLOAT, [2])],
        initializers={"c": np.array([3, 4], np.float32)},
    )
    feeds = {"flag": np.array(False), "x": np.array([5, 6], np.float32)}
    (part,) = pieces(model, feeds | {"y": np.zeros(2, np.float32)})
    assert part.name == "#0"
    np.testing.assert_array_equal(run_model(part.model, feeds)["y"], [15, 24])


def test_the_empty_model_runs(tmp_path: Path) -> None:
    (found,) = onnxruntime.InferenceSession(empty_model().SerializeToString()).run(None, {"x": np.array([7], np.float32)})
    assert found == [7]
