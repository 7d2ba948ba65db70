"""Inputs that take pictures as they are: uint8 pixels, which the model itself brings to the numbers that it was trained with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from converter.errors import UsageError
from converter.graph.protos import freeze_initializers, graphs_of, names_in, nodes_of, refill, unused_name
from converter.load.model import Source, ValueInfo

__all__ = ["LARGEST_PIXEL", "picture_axis", "with_pixel_inputs"]

LARGEST_PIXEL = 255

ChannelNumbers = Callable[[int], tuple[Sequence[float], Sequence[float]]]
"""Number of channels to mean and standard deviation of each, of pixels of 0..1."""


def picture_axis(value: ValueInfo) -> int | None:
    """The axis of the channels of an input that takes float pictures: rank 4 with 1 or 3 channels; None for any other."""
    if not np.issubdtype(value.dtype, np.floating) or len(value.shape) != 4:
        return None
    return next((axis for axis in (1, 3) if value.shape[axis] in (1, 3)), None)


def with_pixel_inputs(source: Source, mean_and_std: ChannelNumbers) -> Source:
    """A source whose float pictures are uint8 pixels, and that normalises them itself: (pixel / 255 - mean) / std.

    Args:
        source: left as it is.
        mean_and_std: what it subtracts and divides by.

    Raises:
        UsageError: no input takes float pictures.
    """
    axes = {value.name: axis for value in source.inputs if (axis := picture_axis(value)) is not None}
    read = {name for node in nodes_of(source.model.graph) for name in node.input}
    axes = {name: axis for name, axis in axes.items() if name in read}
    if not axes:
        listed = "; ".join(f"{v.name} {v.dtype}[{','.join('?' if s is None else str(s) for s in v.shape)}]" for v in source.inputs)
        what = "no input takes pictures of floats (rank 4, 1 or 3 channels) that could be given as pixels"
        raise UsageError(what, where="--io uint8", hint=f"leave it out; the inputs are {listed}")
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    freeze_initializers(model)
    for value in source.inputs:
        if value.name in axes:
            channels = value.shape[axes[value.name]]
            assert isinstance(channels, int)
            _normalise(model.graph, value.name, axes[value.name], *mean_and_std(channels))
    inputs = tuple(replace(v, dtype=np.dtype(np.uint8)) if v.name in axes else v for v in source.inputs)
    return replace(source, model=model, inputs=inputs)


def _normalise(graph: onnx.GraphProto, name: str, axis: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Let everybody read numbers that are computed from the pixels of an input: (pixel - 255 mean) * (1 / (255 std))."""
    taken = names_in(graph)
    numbers, pixels, centred = (unused_name(f"{name}_{what}", taken) for what in ("normalised", "pixels", "centred"))
    for each in graphs_of(graph):
        for node in each.node:
            refill(node.input, [numbers if read == name else read for read in node.input])
    shape = [len(mean) if place == axis else 1 for place in range(4)]
    subtracted = np.asarray(mean, np.float64) * LARGEST_PIXEL
    factors = 1.0 / (np.asarray(std, np.float64) * LARGEST_PIXEL)
    nodes = [helper.make_node("Cast", [name], [pixels], name=pixels, to=TensorProto.FLOAT)]
    for op_type, operand, result in (("Sub", subtracted, centred), ("Mul", factors, numbers)):
        if op_type == "Sub" and not operand.any():
            continue
        array = operand.reshape(shape) if len(set(operand)) > 1 else operand[:1].reshape([1] * 4)
        stored = unused_name(f"{result}_operand", taken)
        graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), stored))
        nodes.append(helper.make_node(op_type, [nodes[-1].output[0], stored], [result], name=result))
    refill(graph.node, [*nodes, *graph.node])
    for value in graph.input:
        if value.name == name:
            value.type.tensor_type.elem_type = TensorProto.UINT8
