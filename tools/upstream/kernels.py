"""Nodes of the graph that the runtime runs, with all that says how much work each is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto, helper

__all__ = ["Kernel", "kernel_of"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Kernel:
    """One node.

    Attributes:
        op_type: without the domain.
        instructions: that it takes.
        reads: tensors, constants included, as the node has them; an empty name where it has none.
        writes: tensors.
        shapes: of all of these.
        constants: those that do not change.
        codes: those of 8 bits.
        attributes: of the node.
    """

    op_type: str
    instructions: float
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    shapes: Mapping[str, Shape]
    constants: frozenset[str]
    codes: frozenset[str]
    attributes: Mapping[str, Any]

    @property
    def elements(self) -> int:
        """Of the first output."""
        return math.prod(self.shapes[self.writes[0]])

    @property
    def computed(self) -> tuple[str, ...]:
        """What it reads that is no constant, each once."""
        return tuple(dict.fromkeys(name for name in self.reads if name and name not in self.constants))


def kernel_of(model: onnx.ModelProto, instructions: float) -> Kernel:
    """A node that is a model of its own (:func:`tools.arm64.split.pieces`), and what it takes."""
    graph = model.graph
    (node,) = graph.node
    shapes: dict[str, Shape] = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    types = {constant.name: constant.data_type for constant in graph.initializer}
    for value in (*graph.input, *graph.output):
        tensor = value.type.tensor_type
        shapes[value.name], types[value.name] = tuple(side.dim_value for side in tensor.shape.dim), tensor.elem_type
    return Kernel(
        node.op_type,
        instructions,
        tuple(node.input),
        tuple(node.output),
        shapes,
        frozenset(constant.name for constant in graph.initializer),
        frozenset(name for name, kind in types.items() if kind in (TensorProto.INT8, TensorProto.UINT8)),
        {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute},
    )
