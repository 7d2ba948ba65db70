"""An Einsum of two operands becomes a MatMul between views, for which there are integer kernels.

A label is in both operands and the result (a batch axis), in both operands only (summed over), or in one operand and the
result (a row or a column). Operands are brought to [batch.., row, sum] and [batch.., sum, column], and the product to the
labels of the result. A constant operand goes to the right, where weights stand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converter.graph.builder import GraphBuilder
from converter.graph.queries import attributes, constant, is_float

__all__ = ["multiply_out_einsums"]


@dataclass(frozen=True)
class _Product:
    """Labels by kind, in the order in which axes will lie, and what size each has; None where it is open."""

    batch: str
    rows: str
    summed: str
    columns: str
    sizes: dict[str, int | None]


def multiply_out_einsums(model: ir.Model) -> list[str]:
    """Write products of two operands as MatMul; returns the names of the results."""
    builder = GraphBuilder(model.graph)
    einsums = [node for node in model.graph if node.op_type == "Einsum" and len(node.inputs) == 2 and is_float(node.outputs[0])]
    named = [(str(node.outputs[0].name), node) for node in einsums]
    return [name for name, node in named if _write(builder, node)]


def _write(builder: GraphBuilder, node: ir.Node) -> bool:
    left, right = node.inputs
    if left is None or right is None or left.shape is None or right.shape is None:
        return False
    a, b, out = _labels(str(attributes(node)["equation"]), len(left.shape), len(right.shape))
    if constant(left) is not None:
        left, right, a, b = right, left, b, a
    product = _product(a, b, out, left, right)
    if product is None:
        return False
    batch, rows, summed, columns = product.batch, product.rows, product.summed, product.columns
    # a matrix of weights multiplies any number of leading axes
    ahead = [*batch, *rows] if not batch and constant(right) is not None else [*batch, rows]
    kept = len(batch) if len(ahead) == len(batch) + 1 else len(ahead)
    views = [[*ahead, summed], [*batch, summed, columns], [*batch, *rows, *columns]]
    targets = [_target(product, view, kept) for view in views]
    if any(target.count(-1) > 1 for target in targets):
        return False
    name = str(node.outputs[0].name)

    def add(op_type: str, inputs: Sequence[ir.Value], groups: Sequence[str], what: str, attrs: dict[str, object] | None = None) -> ir.Value:
        shape = ir.Shape([_size(product, group) for group in groups])
        return builder.add(op_type, inputs, attrs, name=f"{name}_{what}", like=node.outputs[0], shape=shape, before=node)

    def arranged(value: ir.Value, labels: str, view: Sequence[str], target: Sequence[int], what: str) -> ir.Value:
        order, array = "".join(view), constant(value)
        if array is not None:
            return builder.initializer(f"{name}_{what}", array.transpose([labels.index(label) for label in order]).reshape(target))
        if labels != order:
            value = add("Transpose", [value], order, f"{what}_Transpose", {"perm": [labels.index(label) for label in order]})
        if any(len(group) != 1 for group in view):
            value = add("Reshape", [value, _numbers(builder, f"{name}_{what}_shape", target)], view, f"{what}_Reshape")
        return value

    x = arranged(left, a, views[0], targets[0], "left")
    y = arranged(right, b, views[1], targets[1], "right")
    z = add("MatMul", [x, y], [*ahead, columns], "MatMul")
    if [*ahead, columns] != views[2]:
        z = add("Reshape", [z, _numbers(builder, f"{name}_shape", targets[2])], views[2], "Reshape")
    order = "".join(views[2])
    if order != out:
        z = add("Transpose", [z], out, "Transpose", {"perm": [order.index(label) for label in out]})
    builder.replace(node.outputs[0], z, [node])
    return True


def _labels(equation: str, left: int, right: int) -> tuple[str, str, str]:
    """Labels of both operands, of these ranks, and of the result; an ellipsis is spelled out in labels that the equation has not."""
    inputs, arrow, out = equation.replace(" ", "").partition("->")
    a, b = inputs.split(",")
    if not arrow:
        letters = inputs.replace(".", "").replace(",", "")
        out = "..." * ("..." in inputs) + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    free = [chr(code) for code in range(ord("A"), ord("Z") + 1) if chr(code) not in equation]
    hidden = [rank - len(term) + 3 if "..." in term else 0 for term, rank in ((a, left), (b, right))]
    a, b, out = (
        t.replace("...", "".join(free[max(hidden) - n : max(hidden)])) for t, n in zip((a, b, out), (*hidden, max(hidden)), strict=True)
    )
    return a, b, out


def _product(a: str, b: str, out: str, left: ir.Value, right: ir.Value) -> _Product | None:
    """None for a diagonal, a sum over one operand alone, a product without a sum, and sizes that broadcast."""
    kinds = {label: (label in a, label in b, label in out) for label in a + b}
    diagonal = any(len(set(labels)) != len(labels) for labels in (a, b, out))
    if diagonal or any(kind in ((True, False, False), (False, True, False)) for kind in kinds.values()):
        return None
    sizes: dict[str, int | None] = {}
    for labels, value in ((a, left), (b, right)):
        for label, dim in zip(labels, value.shape or (), strict=True):
            size = dim if isinstance(dim, int) else None
            if None not in (size, sizes.get(label)) and size != sizes[label]:
                return None
            sizes[label] = size if sizes.get(label) is None else sizes[label]

    def of(order: str, *kind: bool) -> str:
        return "".join(label for label in order if kinds[label] == kind)

    summed = of(a, True, True, False)
    return _Product(of(out, True, True, True), of(out, True, False, True), summed, of(out, False, True, True), sizes) if summed else None


def _size(product: _Product, group: str) -> int | None:
    """Of an axis for a group of labels; None if it is open."""
    sizes = [product.sizes[label] for label in group]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def _target(product: _Product, groups: Sequence[str], kept: int) -> list[int]:
    """Of a Reshape to an axis for each group: an open axis is 0 among the first, which keep their sizes, and else -1."""
    sizes = [_size(product, group) for group in groups]
    return [size if size is not None else 0 if place < kept else -1 for place, size in enumerate(sizes)]


def _numbers(builder: GraphBuilder, name: str, numbers: Sequence[int]) -> ir.Value:
    return builder.initializer(name, np.array(numbers, np.int64))
