"""Sizes of all tensors before anything is computed: a file of a hundred bytes may declare terabytes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import onnx
from onnx import helper

from converter.errors import ModelError, UsageError
from converter.graph.shape_inference import infer_shapes

__all__ = ["refuse_huge_tensors"]

Shapes = Mapping[str, tuple[int | None, ...]]

_MOST_ELEMENTS = 1 << 28
"""Of a tensor: a gigabyte of float32, of which converting takes a multiple. Maps of 4096 pixels square with 16 channels fit."""


def refuse_huge_tensors(path: Path, model: onnx.ModelProto, shapes: Shapes, asked_for: Collection[str]) -> None:
    """Refuse a model of which a tensor would not fit into memory, as far as shape inference knows.

    Args:
        path: of the model, for messages.
        model: float, valid.
        shapes: of its inputs; None for a size that is open.
        asked_for: names of inputs whose shape the user has given.

    Raises:
        ModelError: names the tensor.
        UsageError: the same where the user has given shapes.
    """
    sizes = {name: math.prod(size or 1 for size in shape) for name, shape in shapes.items()}
    if max(sizes.values(), default=0) <= _MOST_ELEMENTS:  # inference itself would fail at sizes beyond all bounds
        sizes |= _inferred(model, shapes)
    for name, size in sizes.items():
        if size > _MOST_ELEMENTS:
            what = f"tensor '{name}' would have {size:.2e} elements for one sample, which is too many"
            if asked_for:
                raise UsageError(what, where=f"--input-shape {', '.join(asked_for)}", hint="give a smaller shape")
            raise ModelError(what, where=str(path), hint="export the model for smaller inputs")


def _inferred(model: onnx.ModelProto, shapes: Shapes) -> dict[str, int]:
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    for value in sized.graph.input:
        if value.name in shapes:
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind, [1 if size is None else size for size in shapes[value.name]]))
    del sized.graph.value_info[:]
    for output in sized.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        graph = infer_shapes(sized).graph
    except ModelError:
        return {}  # what contradicts itself is found where it is run
    known = [v for v in (*graph.value_info, *graph.output) if v.type.HasField("tensor_type")]
    return {v.name: math.prod(d.dim_value for d in v.type.tensor_type.shape.dim) for v in known}
