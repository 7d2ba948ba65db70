"""The score of a recogniser as the number that a metric's command prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tools.demo import score
from tools.demo.text_lines import TextLine


@pytest.fixture
def always_b(tmp_path: Path) -> Path:
    """A model that reads "b" whatever it sees."""
    constant = numpy_helper.from_array(np.array([[[0.0, 0.0, 1.0, 0.0]]], np.float32), "c")
    nodes = [
        helper.make_node("ReduceMin", ["x"], ["low"], keepdims=0),
        helper.make_node("Mul", ["low", "zero"], ["nothing"]),
        helper.make_node("Add", ["c", "nothing"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 3, 48, 320]), ("y", [1, 1, 4]))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [constant, numpy_helper.from_array(np.array(0.0, np.float32), "zero")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"character": "a\nb"})
    onnx.save(model, tmp_path / "b.onnx")
    return tmp_path / "b.onnx"


@pytest.mark.parametrize(("part", "expected"), [("all", 50.0), ("even", 0.0), ("odd", 100.0)])
def test_parts_are_lines_at_even_and_odd_places(
    always_b: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: str, expected: float
) -> None:
    lines = [TextLine(text, Image.new("RGB", (320, 48))) for text in "abab"]
    monkeypatch.setattr(score, "render_lines", lambda count, _: lines[:count])
    assert score.main(["--lines", "4", "--part", part, str(always_b)]) == 0
    assert float(capsys.readouterr().out) == expected
