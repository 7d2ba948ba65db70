"""Integer coverage of a file whose plan is not at hand: what the runtime's own profiles say about it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from converter.graph.macs import product_macs
from converter.graph.queries import attributes
from converter.runtime.session import Feed, open_session
from converter.verify.integer_coverage import INTEGER_PRODUCTS, integer_products, profile

__all__ = ["Coverage", "Product", "Tensor", "coverage_of", "macs_by_profile", "named", "tensors_by_profile"]

_SAME_PRODUCTS = {
    **dict.fromkeys(("ConvInteger", "FusedConv", "NhwcFusedConv", "QLinearConv"), "Conv"),
    **dict.fromkeys(("FusedGemm", "QGemm"), "Gemm"),
    **dict.fromkeys(("FusedMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QLinearMatMul"), "MatMul"),
}
"""Operators of the runtime, and the standard one that multiplies as often."""

_WEIGHT_PLACES = dict.fromkeys(("QGemm", "QLinearConv", "QLinearMatMul"), 3)
"""Input that holds the second factor, where it is not input 1."""

UNCOUNTED = frozenset(["Attention", "GroupQueryAttention", "MultiHeadAttention", "PackedAttention", "QAttention"])
"""Operators that multiply inside, of which it is only said that they ran."""


@dataclass(frozen=True)
class Tensor:
    """What a kernel wrote: the type as the runtime calls it, and the shape."""

    type: str
    shape: tuple[int, ...]


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


def coverage_of(model: onnx.ModelProto, feed: Feed, settings: Mapping[str, str]) -> Coverage:
    """Count products where the graph runs as it stands, and see which of them the runtime turns into integer kernels.

    Args:
        model: any quantized model.

    Raises:
        ModelError: the model does not run.
    """
    model = named(model)
    with tempfile.TemporaryDirectory() as folder:
        macs = macs_by_profile(model, feed, Path(folder))
        integer, kernels = integer_products(model, macs, feed, settings, Path(folder))
    types = {node.name: node.op_type for node in model.graph.node}
    integer |= {name for name in macs if types[name] in INTEGER_PRODUCTS}  # a file may hold integer operators from the start
    floats = [Product(name, types[name], macs[name]) for name in macs if name not in integer]
    floats.sort(key=lambda product: (-product.macs, product.name))
    uncounted = tuple(sorted(UNCOUNTED.intersection(kernels)))
    return Coverage(sum(macs[name] for name in integer), sum(macs.values()), kernels, tuple(floats), uncounted)


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with a name of its own for each node, as profiles know nodes by their names."""
    result = onnx.ModelProto.FromString(model.SerializeToString())
    taken: set[str] = set()
    for place, node in enumerate(result.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_at_{place}"
        taken.add(node.name)
    return result


def tensors_by_profile(model: onnx.ModelProto, feed: Feed, folder: Path) -> dict[str, Tensor]:
    """What every node of a graph writes as it stands, by tensor; nodes must have names of their own."""
    session = open_session(model, threads=1, optimise=False, profile_prefix=folder / "all")
    written = {event["name"].removesuffix("_kernel_time"): event["args"]["output_type_shape"] for event in profile(session, feed)}
    found = {}
    for node in model.graph.node:
        for name, entry in zip((name for name in node.output if name), written.get(node.name, ()), strict=False):
            ((kind, shape),) = entry.items()
            found[name] = Tensor(kind, tuple(shape))
    return found


def macs_by_profile(model: onnx.ModelProto, feed: Feed, folder: Path) -> dict[str, int]:
    """Multiply-accumulates of each operator that multiplies matrices, float or integer, by node, from the shapes that occur."""
    session = open_session(model, threads=1, optimise=False, profile_prefix=folder / "as_it_stands")
    shapes = {event["name"].removesuffix("_kernel_time"): event["args"] for event in profile(session, feed)}
    stored = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    known_attributes = {str(node.name): attributes(node) for node in ir.from_proto(model).graph}  # a node by itself would be warned of
    constants = {node.output[0]: known_attributes[node.name].get("value") for node in model.graph.node if node.op_type == "Constant"}
    stored |= {name: value.shape for name, value in constants.items() if isinstance(value, np.ndarray)}
    counted = {}
    for node in model.graph.node:
        if node.name in shapes:
            read, written = (_dims(shapes[node.name][f"{end}_type_shape"]) for end in ("input", "output"))
            # the profile leaves out what a kernel has packed for itself
            known = [stored.get(name, read[place] if place < len(read) else None) for place, name in enumerate(node.input)]
            if node.op_type in _WEIGHT_PLACES:
                known[1] = known[_WEIGHT_PLACES[node.op_type]]
            op_type = _SAME_PRODUCTS.get(node.op_type, node.op_type)
            counted[node.name] = product_macs(op_type, known_attributes[node.name], known, written[0] if written else None)
    return {name: macs for name, macs in counted.items() if macs}


def _dims(entries: Sequence[Mapping[str, list[int]]]) -> list[tuple[int, ...]]:
    """Shapes, each of which the profile lists under its type."""
    return [tuple(*entry.values()) for entry in entries]
