"""A small file that declares more than any memory holds is refused before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.errors import ModelError, UsageError
from converter.load.tensor_sizes import refuse_huge_tensors

WHERE = Path("model.onnx")


def model(op_type: str, *constants: Any, doubled: int = 0, **attributes: Any) -> onnx.ModelProto:
    """One operator on x [1, 8, 32, 32] and some constants, perhaps joined with itself many times."""
    names = [f"c{i}" for i in range(len(constants))]
    nodes = [helper.make_node(op_type, ["x", *names] if op_type != "ConstantOfShape" else names, ["t0"], **attributes)]
    nodes += [helper.make_node("Concat", [f"t{i}", f"t{i}"], [f"t{i + 1}"], axis=0) for i in range(doubled)]
    nodes += [helper.make_node("ReduceMean", [f"t{doubled}"], ["mean"], keepdims=0), helper.make_node("Add", ["x", "mean"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 32, 32]) for name in ("x", "y")]
    weights = [numpy_helper.from_array(np.asarray(c), name) for c, name in zip(constants, names, strict=True)]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


SHAPE = {"x": (1, 8, 32, 32)}
HUGE = {
    "a constant": model("ConstantOfShape", [1 << 16, 1 << 15]),
    "expansion": model("Expand", [1 << 16, 8, 32, 32]),
    "repetition": model("Tile", [1, 1, 1 << 10, 1 << 10]),
    "padding": model("Pad", [0] * 6 + [1 << 16] * 2),
    "doubling": model("Relu", doubled=24),
}


@pytest.mark.parametrize("how", HUGE)
def test_tensors_that_a_graph_makes(how: str) -> None:
    with pytest.raises(ModelError, match="elements for one sample") as error:
        refuse_huge_tensors(WHERE, HUGE[how], SHAPE, ())
    assert error.value.exit_code == 3


@pytest.mark.parametrize("shape", [(1, 8, 1 << 20, 1 << 20), (1 << 40, 8, 32, 32), (1, 8, 1 << 62, 1 << 62)])
def test_inputs_that_the_file_declares_or_the_user_asks_for(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="'x'"):
        refuse_huge_tensors(WHERE, model("Relu"), {"x": shape}, ())
    with pytest.raises(UsageError, match="--input-shape x"):
        refuse_huge_tensors(WHERE, model("Relu"), {"x": shape}, ["x"])


def test_what_an_input_of_the_calibrated_size_makes_counts() -> None:
    """Eight maps of 4096 pixels square make half the limit, repeated four times twice the limit."""
    refuse_huge_tensors(WHERE, model("Relu"), {"x": (1, 8, 4096, 4096)}, ())
    with pytest.raises(ModelError, match="'t0'"):
        refuse_huge_tensors(WHERE, model("Tile", [4, 1, 1, 1]), {"x": (1, 8, 4096, 4096)}, ())


def test_usual_models_and_open_sizes_pass() -> None:
    refuse_huge_tensors(WHERE, model("Relu", doubled=3), SHAPE, ())
    refuse_huge_tensors(WHERE, model("Relu"), {"x": (None, 8, None, None)}, ())
