"""A classifier whose answers are known, and what ``models.evaluate`` reports of it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from models.evaluate import main

__all__ = ["evaluate", "strongest_channel"]


def strongest_channel(
    path: Path, *, batch: int | str = "batch", size: int | str = 4, classes: list[str] | None = None, preprocess: str | None = "unit"
) -> Path:
    """A classifier of red, green and blue pictures: the logits are the means of the three channels."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["image"], ["logits"], axes=[2, 3], keepdims=0)],
        "strongest_channel",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    properties = {"bridgequant.classes": json.dumps(classes)} if classes else {}
    helper.set_model_props(model, properties | ({"bridgequant.preprocess": preprocess} if preprocess else {}))
    onnx.save(model, path)
    return path


def evaluate(tmp_path: Path, model: Path, data: Path, *more: str) -> dict[str, object]:
    """What the command writes with ``--json``, which goes to a folder of the test."""
    assert main([str(model), "--data", str(data), "--json", str(tmp_path / "result.json"), *more]) == 0
    report: dict[str, object] = json.loads((tmp_path / "result.json").read_text())
    return report
