"""A folder as the benchmarks of trained networks want it, with made-up pictures."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tools.benchmarks.real.networks.published import PUBLISHED

__all__ = ["red_classes"]


def red_classes(folder: Path) -> Path:
    """A folder in which the brightness of red tells the class, and a network that sees it: 16 pictures, of which 4 calibrate."""
    generator = np.random.default_rng(0)
    pictures = {f"{i % 2:04d}_n{i:02d}.jpg": np.clip(generator.normal(60 + 120 * (i % 2), 20, (240, 260, 3)), 0, 255) for i in range(16)}
    small = {name: array.astype(np.uint8) for name, array in pictures.items()}
    _pack(folder / "imagenet_sample.zip", small)
    _pack(folder / "real/cls_calib.zip", dict(list(small.items())[:4]))
    weight = numpy_helper.from_array(np.array([[[[-1.0]], [[0.0]], [[0.0]]], [[[1.0]], [[0.0]], [[0.0]]]], np.float32), "w")
    bias = numpy_helper.from_array(np.array([0.45, -0.45], np.float32), "b")
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["y"]),
        helper.make_node("GlobalAveragePool", ["y"], ["p"]),
        helper.make_node("Flatten", ["p"], ["logits"]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("images", [1, 3, 224, 224]), ("logits", [1, 2]))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight, bias])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / PUBLISHED["classifier"].model)
    return folder


def _pack(path: Path, pictures: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as pack:
        for name, array in pictures.items():
            stream = io.BytesIO()
            Image.fromarray(array).save(stream, "JPEG" if name.endswith(".jpg") else "PPM")
            pack.writestr(name, stream.getvalue())
