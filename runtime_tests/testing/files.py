"""A small float model and its int8 form as files, and damage to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx


@dataclass(frozen=True)
class Files:
    """A float model and its int8 form."""

    floats: Path
    int8: Path

    def edit(self, change: Callable[[onnx.ModelProto], None]) -> None:
        """Change the int8 file."""
        model = onnx.load(self.int8)
        change(model)
        self.int8.write_bytes(model.SerializeToString())


MakeFiles = Callable[..., Files]


def remove_clip(model: onnx.ModelProto) -> None:
    """Take the last integer Clip out; its readers read the Q."""
    clip = next(node for node in reversed(model.graph.node) if node.op_type == "Clip")
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == clip.output[0]:
                node.input[place] = clip.input[0]
    model.graph.node.remove(clip)


def weight_of(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    """The DQ of the weights of the first node of a type."""
    layer = next(node for node in model.graph.node if node.op_type == op_type)
    return next(node for node in model.graph.node if node.output[0] == layer.input[1])


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    """A stored constant."""
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def damage_head(model: onnx.ModelProto) -> None:
    """Make one weight scale of the Gemm eight times as large: its bias no longer has the scale that the integer kernel assumes."""
    tensor = initializer(model, weight_of(model, "Gemm").input[1])
    scales = onnx.numpy_helper.to_array(tensor).copy()
    scales.reshape(-1)[0] *= 8
    tensor.CopyFrom(onnx.numpy_helper.from_array(scales, tensor.name))
