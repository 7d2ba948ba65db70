"""Integer coverage of a file whose plan is not at hand: what the runtime's own profiles say about it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from converter.graph.macs import einsum_macs
from converter.runtime.session import Feed, open_session
from converter.verify.integer_coverage import INTEGER_PRODUCTS, integer_products, profile
from runtime_tests.subject import Subject

__all__ = ["Coverage", "Product", "coverage_of", "measure_coverage", "product_macs"]

_WEIGHT_PLACES = {"QLinearConv": 3}
"""Input that holds a convolution's weights, where it is not input 1."""

_CONVOLUTIONS = ("Conv", "QLinearConv", "ConvInteger", "FusedConv", "NhwcFusedConv", "DeformConv")
_LINEAR = ("Gemm", "QGemm", "FusedGemm")
_PRODUCTS = ("MatMul", "FusedMatMul", *INTEGER_PRODUCTS)

_RECURRENT = ("GRU", "LSTM", "RNN")

UNCOUNTED = frozenset(["Attention", "GroupQueryAttention", "MultiHeadAttention", "PackedAttention", "QAttention"])
"""Operators that multiply inside, of which it is only said that they ran."""


@dataclass(frozen=True)
class Product:
    """An operator that multiplies and ran in float: its name in the int8 file, type and multiply-accumulates."""

    name: str
    op_type: str
    macs: int


@dataclass(frozen=True)
class Coverage:
    """What ran in integer.

    Attributes:
        integer_macs: multiply-accumulates of Conv, Gemm and MatMul in integer kernels, of one sample.
        total_macs: in all kernels.
        kernels: how many nodes of each kernel ran, most frequent first.
        in_float: products that ran in float, largest first.
        uncounted: types of kernels that ran and multiply, but of which nothing is counted.
    """

    integer_macs: int
    total_macs: int
    kernels: dict[str, int]
    in_float: tuple[Product, ...]
    uncounted: tuple[str, ...] = ()

    @property
    def percent(self) -> float:
        """Share of multiply-accumulates in integer; 0 if there are none at all."""
        return 100.0 * self.integer_macs / self.total_macs if self.total_macs else 0.0


def measure_coverage(subject: Subject) -> Coverage:
    """Count products where the graph runs as it stands, and see which of them the runtime turns into integer kernels.

    Raises:
        ModelError: the model does not run.
    """
    return coverage_of(subject.model, subject.feeds[0], subject.settings)


def coverage_of(model: onnx.ModelProto, feed: Feed, settings: Mapping[str, str]) -> Coverage:
    """The same of any quantized model, on one sample, under these session settings.

    Raises:
        ModelError: the model does not run.
    """
    model = _named(model)
    with tempfile.TemporaryDirectory() as folder:
        macs = product_macs(model, feed, Path(folder))
        integer, kernels = integer_products(model, macs, feed, settings, Path(folder))
    types = {node.name: node.op_type for node in model.graph.node}
    integer |= {name for name in macs if types[name] in INTEGER_PRODUCTS}  # a file may hold integer operators from the start
    floats = [Product(name, types[name], macs[name]) for name in macs if name not in integer]
    floats.sort(key=lambda product: (-product.macs, product.name))
    uncounted = tuple(sorted(UNCOUNTED.intersection(kernels)))
    return Coverage(sum(macs[name] for name in integer), sum(macs.values()), kernels, tuple(floats), uncounted)


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with a name of its own for each node, as profiles know nodes by their names."""
    result = onnx.ModelProto.FromString(model.SerializeToString())
    taken: set[str] = set()
    for place, node in enumerate(result.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_at_{place}"
        taken.add(node.name)
    return result


def product_macs(model: onnx.ModelProto, feed: Feed, folder: Path) -> dict[str, int]:
    """Multiply-accumulates of each Conv, ConvTranspose, Gemm, MatMul, Einsum and recurrent layer, float or integer, by node.

    They come from the shapes that occur.
    """
    session = open_session(model, threads=1, optimise=False, profile_prefix=folder / "as_it_stands")
    shapes = {event["name"].removesuffix("_kernel_time"): event["args"] for event in profile(session, feed)}
    stored = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    constants = {node.output[0]: _attribute(node, "value") for node in model.graph.node if node.op_type == "Constant"}
    stored |= {name: list(tensor.dims) for name, tensor in constants.items() if isinstance(tensor, onnx.TensorProto)}
    counted = {node.name: _macs(node, shapes[node.name], stored) for node in model.graph.node if node.name in shapes}
    return {name: macs for name, macs in counted.items() if macs}


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Any], stored: Mapping[str, list[int]]) -> int:
    """Multiply-accumulates of one node, 0 if it does not multiply."""
    inputs, outputs = _dims(shapes["input_type_shape"]), _dims(shapes["output_type_shape"])

    def operand(place: int) -> list[int]:
        # the profile leaves out what a kernel has packed for itself
        return stored[node.input[place]] if node.input[place] in stored else inputs[place]

    if node.op_type in (*_CONVOLUTIONS, "ConvTranspose"):
        weight = operand(_WEIGHT_PLACES.get(node.op_type, 1))
        return math.prod((inputs if node.op_type == "ConvTranspose" else outputs)[0]) * math.prod(weight[1:])
    if node.op_type in _RECURRENT:
        return math.prod(inputs[0][:2]) * (math.prod(operand(1)) + math.prod(operand(2)))
    if node.op_type in _LINEAR:
        return math.prod(outputs[0]) * inputs[0][0 if _attribute(node, "transA") else -1]
    if node.op_type in _PRODUCTS:
        return math.prod(outputs[0]) * inputs[0][-2 if _attribute(node, "transA") else -1]
    if node.op_type == "Einsum":
        return einsum_macs(_attribute(node, "equation").decode(), inputs)
    return 0


def _dims(entries: Sequence[Mapping[str, list[int]]]) -> list[list[int]]:
    """Shapes, each of which the profile lists under its type."""
    return [list(*entry.values()) for entry in entries]


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next((onnx.helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), 0)
