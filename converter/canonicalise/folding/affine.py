"""Constant factors and offsets move into the weights beside them.

Cases, repeated until none applies:

1. ``BatchNormalization`` becomes ``Mul`` and ``Add``; division by and subtraction of a constant become ``Mul`` and ``Add``.
2. Two ``Mul`` (or two ``Add``) by constants in a row become one.
3. ``Mul`` or ``Add`` behind a Conv, ConvTranspose, Gemm or constant MatMul goes into its weights and bias (a MatMul
   has no bias: only ``Mul``, also across the ``Add`` that serves as its bias).
4. ``Mul`` in front of a Conv, ConvTranspose, Gemm or constant MatMul goes into its weights; ``Add`` goes into the bias
   of a Gemm, and of a Conv that does not pad (a padded border is zero and must stay so).
5. ``Mul`` then ``Add`` in front of a padded Conv: the ``Mul`` passes the ``Add`` (a x + b = a (x + b/a)) and then goes
   into the weights.

A tensor that something else reads too is never changed. Nothing is folded that broadcasts its operand to a larger
shape, that would make a merged constant larger than both parts, or that leaves the range of float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.canonicalise.folding.layers import (
    bias_of,
    is_layer,
    pads,
    per_input,
    per_output,
    rank_of,
    scale_inputs,
    scale_outputs,
    set_weights,
    sum_inputs,
)
from converter.graph.builder import GraphBuilder
from converter.graph.operator_sets import LAYERS, PRODUCTS
from converter.graph.queries import attributes, constant, is_float, is_graph_output, sole_consumer

__all__ = ["fold_affine"]

Array = npt.NDArray[Any]


def fold_affine(model: ir.Model) -> list[str]:
    """Fold constant factors and offsets; returns the names of the tensors concerned."""
    builder = GraphBuilder(model.graph)
    changed: list[str] = []
    rules: list[Callable[[GraphBuilder, ir.Node], bool]] = [_spell_out, _merge, _into_producer, _into_consumer, _pass_offset]
    fired = True
    while fired:
        fired = False
        for node in list(model.graph):
            if node.graph is None:
                continue
            names = [str(o.name) for o in node.outputs]
            if any(rule(builder, node) for rule in rules):
                changed.extend(names)
                fired = True
    return list(dict.fromkeys(changed))


def _operand(node: ir.Node | None, op_type: str) -> tuple[ir.Value, Array] | None:
    """(computed input, constant float operand) of a binary node of that type."""
    if node is None or node.op_type != op_type or len(node.inputs) != 2:
        return None
    for index in (0, 1):
        array = constant(node.inputs[1 - index])
        value = node.inputs[index]
        if array is not None and value is not None and is_float(value) and constant(value) is None:
            return value, array
    return None


def _binary(builder: GraphBuilder, anchor: ir.Node, op_type: str, x: ir.Value, operand: Array) -> ir.Value:
    name = f"{anchor.outputs[0].name}_{op_type}"
    second = builder.initializer(f"{name}_operand", operand.astype(np.float32))
    return builder.add(op_type, [x, second], name=name, like=anchor.outputs[0], before=anchor)


def _fits(operand: Array, *parts: Array) -> bool:
    """True if float32 holds the operand, and it is no larger than the largest of the parts it was made of."""
    with np.errstate(over="ignore"):
        return operand.size <= max(p.size for p in parts) and bool(np.isfinite(operand.astype(np.float32)).all())


def _spell_out(builder: GraphBuilder, node: ir.Node) -> bool:
    """Case 1."""
    output = node.outputs[0]
    if node.op_type == "BatchNormalization":
        arrays = [constant(v) for v in node.inputs[1:]]
        x, attrs = node.inputs[0], attributes(node)
        if x is None or x.shape is None or any(a is None for a in arrays) or attrs.get("training_mode", 0) or not is_float(x):
            return False
        gamma, beta, mean, variance = (np.asarray(a, np.float64) for a in arrays)
        factor = gamma / np.sqrt(variance + attrs.get("epsilon", 1e-5))
        offset = beta - mean * factor
        if not _fits(np.stack([factor, offset]), np.stack([gamma, beta])):
            return False
        shape = (1, -1) + (1,) * (len(x.shape) - 2)
        scaled = _binary(builder, node, "Mul", x, factor.reshape(shape))
        builder.replace(output, _binary(builder, node, "Add", scaled, offset.reshape(shape)), [node])
        return True
    if node.op_type in ("Div", "Sub"):
        array, x = constant(node.inputs[1]), node.inputs[0]
        if array is None or x is None or not is_float(x) or constant(x) is not None or (node.op_type == "Div" and not np.all(array)):
            return False
        op_type, operand = ("Mul", 1.0 / array.astype(np.float64)) if node.op_type == "Div" else ("Add", -array)
        if not _fits(operand, array):
            return False
        builder.replace(output, _binary(builder, node, op_type, x, operand), [node])
        return True
    return False


def _merge(builder: GraphBuilder, node: ir.Node) -> bool:
    """Case 2: the node is the second."""
    for op_type, combine in (("Mul", np.multiply), ("Add", np.add)):
        outer = _operand(node, op_type)
        if outer is None:
            continue
        first = outer[0].producer()
        inner = _operand(first, op_type)
        if first is None or inner is None or sole_consumer(outer[0]) is not node:
            return False
        combined = combine(outer[1].astype(np.float64), inner[1].astype(np.float64))
        if not _fits(combined, outer[1], inner[1]):
            return False
        builder.replace(node.outputs[0], _binary(builder, node, op_type, inner[0], combined), [node, first])
        return True
    return False


def _into_producer(builder: GraphBuilder, node: ir.Node) -> bool:
    """Case 3: the node is behind a layer."""
    multiplied, added = _operand(node, "Mul"), _operand(node, "Add")
    x, operand = multiplied or added or (None, None)
    if x is None or operand is None or sole_consumer(x) is not node:
        return False
    layer, rank, bias_add = x.producer(), rank_of(x), None
    offset = _operand(layer, "Add") if multiplied is not None else None
    if layer is not None and offset is not None:
        bias_add, layer = layer, offset[0].producer()
        if not is_layer(layer, "MatMul") or sole_consumer(offset[0]) is not bias_add:
            return False
    if layer is None or rank is None or not is_layer(layer, "Conv", "ConvTranspose", "Gemm", *(["MatMul"] if multiplied else [])):
        return False
    values = per_output(layer, operand, rank)
    if values is None:
        return False
    bias = bias_of(layer, values.size)
    if multiplied is None:
        if not set_weights(builder, layer, None, values if bias is None else bias + values):
            return False
    else:
        scaled = offset[1].astype(np.float64) * operand if offset is not None else None
        if scaled is not None and not np.isfinite(scaled.astype(np.float32)).all():
            return False
        if not set_weights(builder, layer, scale_outputs(layer, values), None if bias is None else bias * values):
            return False
        if bias_add is not None and scaled is not None:
            new = builder.initializer(f"{bias_add.outputs[0].name}_operand", scaled.astype(np.float32))
            bias_add.replace_input_with(1 if constant(bias_add.inputs[0]) is None else 0, new)
    builder.replace(node.outputs[0], x, [node])
    return True


def _into_consumer(builder: GraphBuilder, node: ir.Node) -> bool:
    """Case 4: the node is in front of a layer."""
    multiplied, added = _operand(node, "Mul"), _operand(node, "Add")
    x, operand = multiplied or added or (None, None)
    layer, rank = sole_consumer(node.outputs[0]), rank_of(node.outputs[0])
    kinds = PRODUCTS if multiplied is not None else LAYERS - {"MatMul"}
    if x is None or operand is None or layer is None or rank is None or not is_layer(layer, *kinds):
        return False
    weight = constant(layer.inputs[1])
    if weight is None or (layer.op_type == "MatMul" and weight.ndim != 2) or (multiplied is None and pads(layer)):
        return False
    values = per_input(layer, operand, x, rank)
    if values is None:
        return False
    if multiplied is not None:
        done = set_weights(builder, layer, scale_inputs(layer, values), None)
    else:
        change = sum_inputs(layer, values)
        bias = bias_of(layer, change.size)
        done = set_weights(builder, layer, None, change if bias is None else bias + change)
    if done:
        layer.replace_input_with(0, x)
        builder.remove([node])
    return done


def _pass_offset(builder: GraphBuilder, node: ir.Node) -> bool:
    """Case 5: the node is an Add between a Mul and a Conv."""
    added = _operand(node, "Add")
    layer, rank = sole_consumer(node.outputs[0]), rank_of(node.outputs[0])
    if added is None or layer is None or rank is None or not is_layer(layer, "Conv") or is_graph_output(added[0]):
        return False
    factor_node = added[0].producer()
    scaled = _operand(factor_node, "Mul")
    if scaled is None or factor_node is None or sole_consumer(added[0]) is not node or not np.all(scaled[1]):
        return False
    quotient = added[1].astype(np.float64) / scaled[1]
    if per_input(layer, scaled[1], scaled[0], rank) is None or not _fits(quotient, added[1], scaled[1]):
        return False
    moved = _binary(builder, node, "Add", scaled[0], quotient)
    builder.replace(node.outputs[0], _binary(builder, node, "Mul", moved, scaled[1]), [node, factor_node])
    return True
