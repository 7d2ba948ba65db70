"""Read-only questions about a canonical graph. Nothing here changes a model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = [
    "attributes",
    "constant",
    "consumers",
    "data_inputs",
    "gives_pixels",
    "is_float",
    "is_float_output",
    "is_graph_output",
    "merge_neighbours",
    "moves_one_axis",
    "narrows_output",
    "relabel_factor",
    "relabel_offset",
    "scalar",
    "sole_consumer",
]


_LARGEST_CODE = 255

_LARGEST_FACTOR = 2.0**20
"""Relabelling by more than this, or less than its inverse, could leave the range of sound scales."""


def constant(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """The array behind an initializer or a Constant node's output; None for anything computed or absent."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """The number behind a constant of one element, else None."""
    array = constant(value)
    return float(array.reshape(())[()]) if array is not None and array.size == 1 else None


def gives_pixels(node: ir.Node | None) -> bool:
    """True for a DequantizeLinear of computed uint8 codes, such as pixels, without a zero point."""
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return False
    x, zero_point = node.inputs[0], constant(node.inputs[2]) if len(node.inputs) > 2 else None
    scaled = constant(node.inputs[1]) is not None and (len(node.inputs) < 3 or zero_point is not None)
    return x.dtype == ir.DataType.UINT8 and constant(x) is None and scaled and not np.any(zero_point if zero_point is not None else 0)


def relabel_offset(node: ir.Node) -> int | None:
    """The whole number, if the node adds one to the numbers of pixels; their codes only get another zero point."""
    if node.op_type != "Add":
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        offset = scalar(value)
        if offset is not None and other is not None and gives_pixels(other.producer()):
            return int(offset) if offset.is_integer() and -_LARGEST_CODE <= offset <= 0 else None
    return None


def attributes(node: ir.Node) -> dict[str, Any]:
    """Attributes as plain Python values; tensors as NumPy arrays."""
    result: dict[str, Any] = {}
    for name, attribute in node.attributes.items():
        value = attribute.value
        if attribute.type == ir.AttributeType.TENSOR:
            value = attribute.as_tensor().numpy()
        elif isinstance(value, tuple):
            value = list(value)
        result[name] = value
    return result


def relabel_factor(node: ir.Node) -> float | None:
    """The factor, if the node multiplies a computed tensor by one positive number of ordinary size."""
    if node.op_type != "Mul":
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        factor, array = scalar(value), constant(value)
        if factor is None or array is None or other is None or constant(other) is not None:
            continue
        widens = array.ndim > (len(other.shape) if other.shape is not None else 0)
        return factor if 1 / _LARGEST_FACTOR <= factor <= _LARGEST_FACTOR and not widens else None
    return None


def consumers(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """(node, input index) of every use, in the order in which the uses came to be."""
    return [(use.node, use.idx) for use in value.uses()]


def is_graph_output(value: ir.Value) -> bool:
    """True if the value is one of the model's outputs."""
    return value.is_graph_output()


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads the value, if there is just one use and it is not a model output."""
    uses = consumers(value)
    return uses[0][0] if len(uses) == 1 and not is_graph_output(value) else None


def is_float(value: ir.Value | None) -> bool:
    """True for float32 tensors; a sequence of them is none."""
    return value is not None and value.dtype == ir.DataType.FLOAT and not isinstance(value.type, (ir.SequenceType, ir.OptionalType))


def data_inputs(node: ir.Node) -> Iterator[tuple[int, ir.Value]]:
    """(index, value) of the inputs that are computed (not constant) float tensors."""
    for index, value in enumerate(node.inputs):
        if value is not None and is_float(value) and constant(value) is None:
            yield index, value


def is_float_output(value: ir.Value) -> bool:
    """True for a model output of floating point numbers: float32, or float16 that is made of float32 at the end."""
    return value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def narrows_output(node: ir.Node) -> bool:
    """True for the Cast that makes a float16 output of the model."""
    return node.op_type == "Cast" and is_graph_output(node.outputs[0]) and node.outputs[0].dtype == ir.DataType.FLOAT16


def moves_one_axis(perm: Sequence[int]) -> bool:
    """True if a permutation moves one axis and all others keep their order."""
    places = range(len(perm))
    return any([p for p in perm if p != axis] == [p for p in places if p != axis] for axis in places)


def merge_neighbours(sizes: Sequence[int], order: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes of axes, and the order in which a Transpose puts them, with axes that stay neighbours made one."""
    runs: list[list[int]] = []
    for atom in order:
        if runs and runs[-1][-1] + 1 == atom:
            runs[-1].append(atom)
        else:
            runs.append([atom])
    starts = sorted(run[0] for run in runs)
    place = {start: i for i, start in enumerate(starts)}
    width = {run[0]: math.prod(sizes[a] for a in run) for run in runs}
    return tuple(width[s] for s in starts), tuple(place[run[0]] for run in runs)
