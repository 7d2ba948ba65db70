"""Multiply-accumulates of operators that multiply matrices, whether there are integer kernels for them or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from converter.graph.operator_sets import RECURRENT
from converter.graph.queries import attributes as attributes_of
from converter.graph.queries import constant

__all__ = ["Shape", "macs_of", "product_macs", "shape_of"]

Shape = tuple[int, ...]


def macs_of(node: ir.Node, shapes: Mapping[str, Shape]) -> int:
    """Multiply-accumulates of one run of a node; 0 if it multiplies no matrices, or if a shape that counts is not known.

    A transposed convolution multiplies before its borders are cut off. Recurrent layers are taken to run through whole sequences.

    Args:
        shapes: of computed float tensors, by name.
    """
    read = [shape_of(value, shapes) for value in node.inputs]
    return product_macs(node.op_type, attributes_of(node), read, shapes.get(str(node.outputs[0].name)))


def product_macs(op_type: str, attributes: Mapping[str, Any], read: Sequence[Shape | None], written: Shape | None) -> int:
    """The same from the shapes of operands and first result; None where one is not known."""
    if op_type == "Einsum":
        return _einsum_macs(str(attributes["equation"]), [s for s in read if s is not None]) if None not in read else 0
    x, weight, recurrence = (*read, None, None, None)[:3]
    if x is None or weight is None:
        return 0
    if op_type in RECURRENT:
        return 0 if recurrence is None else math.prod(x[:2]) * (math.prod(weight) + math.prod(recurrence))
    if op_type == "ConvTranspose":
        return math.prod(x) * math.prod(weight[1:])
    if written is None:
        return 0
    if op_type in ("Conv", "DeformConv"):
        return math.prod(written) * math.prod(weight[1:])
    if op_type in ("Gemm", "MatMul"):
        return math.prod(written) * (x[-2 if attributes.get("transA", 0) else -1] if x else 0)
    return 0


def _einsum_macs(equation: str, shapes: Sequence[Sequence[int]]) -> int:
    """One for each combination of indices; the axes of an ellipsis count once, as broadcasting has them. None if there is one operand."""
    if len(shapes) < 2:
        return 0
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.replace(" ", "").split("->")[0].split(","), shapes, strict=True):
        head, dots, tail = term.partition("...")
        hidden = range(len(shape) - len(head) - len(tail)) if dots else range(0)
        labels = [*head, *(f".{place - len(hidden)}" for place in hidden), *tail]
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values())


def shape_of(value: ir.Value | None, shapes: Mapping[str, Shape]) -> Shape | None:
    """That of a constant, or of a computed float tensor; None if it is not known or there is no value."""
    if value is None:
        return None
    array = constant(value)
    return shapes.get(str(value.name)) if array is None else array.shape
