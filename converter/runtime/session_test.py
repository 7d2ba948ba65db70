from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from converter.errors import ModelError
from converter.runtime.session import open_session, run_model, run_session
from converter.testing.rewrites import Draft, op_types, weights


def spelled_gelu() -> onnx.ModelProto:
    draft = Draft(x=("n", 4))
    plus_one = draft.add("Add", draft.add("Erf", draft.add("Div", "x", 2**0.5)), 1.0)
    return draft.model(draft.add("Mul", draft.add("Mul", "x", plus_one), 0.5))


def test_outputs_come_by_name_and_in_order() -> None:
    draft = Draft(x=(1, 2))
    model = draft.model(draft.add("Neg", "x", name="b"), draft.add("Abs", "x", name="a"))
    feed = {"x": np.asarray([[-1.0, 2.0]], np.float32)}
    outputs = run_model(model, feed)
    assert list(outputs) == ["b_out", "a_out"]
    assert outputs["b_out"].tolist() == [[1.0, -2.0]]
    assert list(run_session(open_session(model), feed, ["a_out"])) == ["a_out"]


@pytest.mark.parametrize("spinning", [True, False])
def test_threads_spin_only_where_that_is_asked_for(spinning: bool) -> None:
    options = open_session(spelled_gelu(), spinning=spinning).get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(spinning))


@pytest.mark.parametrize("optimise", [True, False])
def test_optimisation_is_on_or_off(optimise: bool, tmp_path: Path) -> None:
    model = spelled_gelu()
    open_session(model, optimise=optimise, optimised_path=tmp_path / "optimised.onnx")
    kept = op_types(onnx.load(tmp_path / "optimised.onnx")) == op_types(model)
    assert kept is not optimise


def test_a_model_from_a_file(tmp_path: Path) -> None:
    onnx.save(spelled_gelu(), tmp_path / "gelu.onnx")
    assert [i.name for i in open_session(tmp_path / "gelu.onnx").get_inputs()] == ["x"]


def test_settings_and_profile_reach_the_session(tmp_path: Path) -> None:
    session = open_session(spelled_gelu(), threads=1, settings={"session.disable_quant_qdq": "1"}, profile_prefix=tmp_path / "profile")
    assert session.get_session_options().get_session_config_entry("session.disable_quant_qdq") == "1"
    assert session.get_session_options().intra_op_num_threads == 1
    run_session(session, {"x": np.zeros((1, 4), np.float32)})
    assert Path(session.end_profiling()).parent == tmp_path


def broken(op_type: str, *inputs: str, opset: int = 20) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(op_type, list(inputs), ["y"], name="/block/node 1")],
        "broken",
        [helper.make_tensor_value_info("x", 1, (2, 3))],
        [helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(weights(4, 5), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (broken("MatMul", "x", "w"), "Incompatible dimensions"),
        (broken("Nonsense", "x"), "No Op registered for Nonsense"),
        (broken("Swish", "x", opset=28), "Could not find an implementation for Swish"),
    ],
    ids=["shapes", "unknown operator", "no kernel"],
)
def test_a_model_that_does_not_load_names_the_node(model: onnx.ModelProto, said: str) -> None:
    with pytest.raises(ModelError, match="does not load the model") as caught:
        open_session(model)
    assert said in caught.value.what
    assert caught.value.where == "node '/block/node 1'"


def test_a_node_that_fails_on_an_input_is_named() -> None:
    draft = Draft(x=("n", "m"))
    session = open_session(draft.model(draft.add("Reshape", "x", np.asarray([3, -1]), name="/block/Reshape 1")))
    with pytest.raises(ModelError, match="cannot run the model") as caught:
        run_session(session, {"x": np.zeros((1, 4), np.float32)})
    assert caught.value.where == "node '/block/Reshape 1'"
    assert "cannot be reshaped" in caught.value.what
    assert ".h:" not in caught.value.what  # no places in the runtime's own sources


def test_an_input_of_another_type_is_refused() -> None:
    with pytest.raises(ModelError, match="Unexpected input data type"):
        run_model(spelled_gelu(), {"x": np.zeros((1, 4), np.float64)})


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    for name in ("noise.onnx", "missing.onnx"):
        with pytest.raises(ModelError, match="does not load the model"):
            open_session(tmp_path / name)
