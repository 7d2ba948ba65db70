"""The score of a model as the number that a metric's command prints."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tools.benchmarks.real.networks.published import PUBLISHED
from tools.benchmarks.real.score import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six red and two blue pictures of class 0, of which one was drawn to calibrate, and a network that takes red for class 0."""
    (tmp_path / "real").mkdir()
    for name in ("imagenet_sample.zip", "real/cls_calib.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as pack:
            for index in range(8 if name.startswith("imagenet") else 1):
                Image.new("RGB", (240, 240), "red" if index < 6 else "blue").save(tmp_path / "picture.jpg")
                pack.write(tmp_path / "picture.jpg", f"0000_n{index}.jpg")
    weight = numpy_helper.from_array(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], np.float32), "w")
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["logits"]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("images", [1, 3, 224, 224]), ("logits", [1, 2]))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / PUBLISHED["classifier"].model)
    return tmp_path


def test_it_prints_one_number_and_nothing_else(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classifier", "--data", str(data), str(data / PUBLISHED["classifier"].model)]) == 0
    assert float(capsys.readouterr().out) == pytest.approx(100.0 * 5 / 7, abs=1e-5)
    assert main(["classifier", "--data", str(data), "--part", "odd", str(data / PUBLISHED["classifier"].model)]) == 0
    assert float(capsys.readouterr().out) == pytest.approx(100.0 * 2 / 3, abs=1e-5)


def test_what_it_refuses(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lanes", "--data", str(data), "a.onnx"]) == 2
    assert main(["classifier", "--data", str(data), str(data / "absent.onnx")]) == 3
    assert main(["classifier", "--data", str(data), "--figure", "mAP", str(data / PUBLISHED["classifier"].model)]) == 2
    assert capsys.readouterr().out == ""
