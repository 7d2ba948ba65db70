"""Constant factors and offsets move into the weights beside them.

Cases, repeated until none applies:

1. ``BatchNormalization`` becomes ``Mul`` and ``Add``; division by and subtraction of a constant become ``Mul`` and ``Add``.
2. Two ``Mul`` (or two ``Add``) by constants in a row become one.
3. ``Mul`` or ``Add`` behind a Conv, ConvTranspose, Gemm or constant MatMul goes into its weights and bias (a MatMul
   has no bias: only ``Mul``, also across the ``Add`` that serves as its bias).
4. ``Mul`` in front of a Conv, Gemm or constant MatMul goes into its weights; ``Add`` goes into the bias of a Gemm,
   and of a Conv that does not pad (a padded border is zero and must stay so).
5. ``Mul`` then ``Add`` in front of a padded Conv: the ``Mul`` passes the ``Add`` (a x + b = a (x + b/a)) and then goes
   into the weights.

A tensor that something else reads too is never changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.graph import attributes, constant, data_inputs, is_float, is_graph_output, sole_consumer
from converter.rewriting import add_initializer, insert_before, replace

__all__ = ["fold_affine"]

Array = npt.NDArray[Any]


def fold_affine(model: ir.Model) -> list[str]:
    """Fold constant factors and offsets; returns the names of the tensors concerned."""
    graph = model.graph
    changed: list[str] = []
    rules: list[Callable[[ir.Graph, ir.Node], bool]] = [_spell_out, _merge, _into_producer, _into_consumer, _pass_offset]
    fired = True
    while fired:
        fired = False
        for node in list(graph):
            if node.graph is not graph:
                continue
            names = [str(o.name) for o in node.outputs]
            if any(rule(graph, node) for rule in rules if node.graph is graph):
                changed.extend(names)
                fired = True
    return list(dict.fromkeys(changed))


def _operand(node: ir.Node, op_type: str) -> tuple[ir.Value, Array] | None:
    """(computed input, constant float operand) of a binary node of that type."""
    if node.op_type != op_type or len(node.inputs) != 2:
        return None
    for index in (0, 1):
        array = constant(node.inputs[1 - index])
        value = node.inputs[index]
        if array is not None and value is not None and is_float(value) and constant(value) is None:
            return value, array
    return None


def _spell_out(graph: ir.Graph, node: ir.Node) -> bool:
    output = node.outputs[0]
    if node.op_type == "BatchNormalization":
        arrays = [constant(v) for v in node.inputs[1:]]
        x = node.inputs[0]
        if x is None or x.shape is None or any(a is None for a in arrays):
            return False
        gamma, beta, mean, variance = (np.asarray(a, np.float64) for a in arrays)
        factor = gamma / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
        shape = (1, -1) + (1,) * (len(x.shape) - 2)
        scaled = _binary(graph, node, "Mul", x, factor.reshape(shape))
        replace(output, _binary(graph, node, "Add", scaled, (beta - mean * factor).reshape(shape)), [node])
        return True
    if node.op_type in ("Div", "Sub"):
        array = constant(node.inputs[1])
        x = node.inputs[0]
        if array is None or x is None or not is_float(x) or constant(x) is not None or (node.op_type == "Div" and not np.all(array)):
            return False
        op_type, operand = ("Mul", 1.0 / array.astype(np.float64)) if node.op_type == "Div" else ("Add", -array)
        replace(output, _binary(graph, node, op_type, x, operand), [node])
        return True
    return False


def _binary(graph: ir.Graph, anchor: ir.Node, op_type: str, x: ir.Value, operand: Array) -> ir.Value:
    name = f"{anchor.outputs[0].name}_{op_type}"
    second = add_initializer(graph, f"{name}_operand", operand.astype(np.float32))
    return insert_before(anchor, op_type, [x, second], name=name, like=anchor.outputs[0])


def _merge(graph: ir.Graph, node: ir.Node) -> bool:
    for op_type, combine in (("Mul", np.multiply), ("Add", np.add)):
        outer = _operand(node, op_type)
        if outer is None:
            continue
        inner_node = outer[0].producer()
        inner = _operand(inner_node, op_type) if inner_node is not None else None
        if inner is None or sole_consumer(outer[0]) is not node:
            return False
        assert inner_node is not None
        combined = combine(outer[1].astype(np.float64), inner[1].astype(np.float64))
        replace(node.outputs[0], _binary(graph, node, op_type, inner[0], combined), [node, inner_node])
        return True
    return False


# Shapes of weights: which axis counts output channels, which counts input channels.


def _per_output(layer: ir.Node, operand: Array, rank: int) -> Array | None:
    """The operand as one number per output channel, or None if it is not of that form."""
    weight = constant(layer.inputs[1])
    if weight is None:
        return None
    if layer.op_type == "Conv":
        channels, axis = weight.shape[0], 1
    elif layer.op_type == "ConvTranspose":
        channels, axis = weight.shape[1] * attributes(layer).get("group", 1), 1
    else:
        channels, axis = weight.shape[0 if _transposed(layer) else -1], rank - 1
    return _along(operand, axis, rank, channels)


def _per_input(layer: ir.Node, operand: Array, rank: int) -> Array | None:
    """The operand as one number per input channel, or None if it is not of that form."""
    weight = constant(layer.inputs[1])
    if weight is None:
        return None
    if layer.op_type == "Conv":
        channels, axis = weight.shape[1] * attributes(layer).get("group", 1), 1
    else:
        channels, axis = weight.shape[1 if _transposed(layer) else -2], rank - 1
    return _along(operand, axis, rank, channels)


def _along(operand: Array, axis: int, rank: int, channels: int) -> Array | None:
    if operand.size == 1 and operand.ndim <= rank:
        return np.full(channels, operand.reshape(())[()], np.float64)
    if operand.ndim > rank:
        return None
    shape = (1,) * (rank - operand.ndim) + operand.shape
    if any(n != 1 for i, n in enumerate(shape) if i != axis) or shape[axis] != channels:
        return None
    return operand.astype(np.float64).reshape(channels)


def _transposed(layer: ir.Node) -> bool:
    return layer.op_type == "Gemm" and bool(attributes(layer).get("transB", 0))


def _is_layer(node: ir.Node | None, *op_types: str) -> bool:
    if node is None or node.op_type not in op_types or constant(node.inputs[1]) is None:
        return False
    if len(node.inputs) > 2 and node.inputs[2] is not None and constant(node.inputs[2]) is None:
        return False
    attrs = attributes(node)
    plain = attrs.get("alpha", 1.0) == 1.0 and attrs.get("beta", 1.0) == 1.0 and not attrs.get("transA", 0)
    return plain and len(list(data_inputs(node))) == 1


def _bias(layer: ir.Node, channels: int) -> Array:
    array = constant(layer.inputs[2]) if len(layer.inputs) > 2 else None
    return np.zeros(channels) if array is None else np.broadcast_to(array.astype(np.float64).reshape(-1), (channels,))


def _set_weights(graph: ir.Graph, layer: ir.Node, weight: Array, bias: Array | None) -> None:
    name = layer.outputs[0].name
    layer.replace_input_with(1, add_initializer(graph, f"{name}_weight", weight.astype(np.float32)))
    if bias is None:
        return
    value = add_initializer(graph, f"{name}_bias", bias.astype(np.float32))
    if len(layer.inputs) < 3:
        layer.resize_inputs(3)
    layer.replace_input_with(2, value)


def _scale_outputs(layer: ir.Node, weight: Array, factor: Array) -> Array:
    if layer.op_type == "Conv":
        return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    if layer.op_type == "ConvTranspose":
        groups = attributes(layer).get("group", 1)
        per_group = factor.reshape(groups, 1, -1)
        split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        return (split * per_group[..., None]).reshape(weight.shape)
    return weight * (factor[:, None] if _transposed(layer) else factor)


def _scale_inputs(layer: ir.Node, weight: Array, factor: Array) -> Array:
    if layer.op_type != "Conv":
        return weight * (factor if _transposed(layer) else factor[:, None])
    groups = attributes(layer).get("group", 1)
    per_output = np.repeat(factor.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return weight * per_output.reshape(*per_output.shape, *[1] * (weight.ndim - 2))


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _into_producer(graph: ir.Graph, node: ir.Node) -> bool:
    for op_type in ("Mul", "Add"):
        found = _operand(node, op_type)
        if found is None:
            continue
        x, operand = found
        layer = x.producer()
        if sole_consumer(x) is not node or layer is None:
            return False
        through = None
        if op_type == "Mul" and layer.op_type == "Add" and _operand(layer, "Add") is not None:
            through, matmul = layer, _operand(layer, "Add")
            assert matmul is not None
            layer = matmul[0].producer()
            if not _is_layer(layer, "MatMul") or sole_consumer(matmul[0]) is not through:
                return False
        kinds = ("Conv", "ConvTranspose", "Gemm", "MatMul") if op_type == "Mul" else ("Conv", "ConvTranspose", "Gemm")
        rank = _rank(x)
        if not _is_layer(layer, *kinds) or rank is None:
            return False
        assert layer is not None
        values = _per_output(layer, operand, rank)
        weight = constant(layer.inputs[1])
        if values is None or weight is None:
            return False
        if op_type == "Add":
            _set_weights(graph, layer, weight, _bias(layer, values.size) + values)
        else:
            has_bias = layer.op_type != "MatMul" and len(layer.inputs) > 2 and layer.inputs[2] is not None
            bias = _bias(layer, values.size) * values if has_bias else None
            _set_weights(graph, layer, _scale_outputs(layer, weight.astype(np.float64), values), bias)
        if through is not None:
            offset = _operand(through, "Add")
            assert offset is not None
            index = 1 if through.inputs[0] is offset[0] else 0
            scaled = offset[1].astype(np.float64) * operand
            through.replace_input_with(index, add_initializer(graph, f"{through.outputs[0].name}_operand", scaled.astype(np.float32)))
        replace(node.outputs[0], x, [node])
        return True
    return False


def _into_consumer(graph: ir.Graph, node: ir.Node) -> bool:
    for op_type in ("Mul", "Add"):
        found = _operand(node, op_type)
        layer = sole_consumer(node.outputs[0])
        if found is None or not _is_layer(layer, "Conv", "Gemm", "MatMul") or layer is None or layer.inputs[0] is not node.outputs[0]:
            continue
        x, operand = found
        rank = _rank(node.outputs[0])
        weight = constant(layer.inputs[1])
        if rank is None or weight is None or _rank(x) != rank or weight.ndim < 2 or (layer.op_type == "MatMul" and weight.ndim != 2):
            return False
        values = _per_input(layer, operand, rank)
        if values is None:
            return False
        weight = weight.astype(np.float64)
        if op_type == "Mul":
            _set_weights(graph, layer, _scale_inputs(layer, weight, values), None)
        else:
            if layer.op_type == "MatMul" or (layer.op_type == "Conv" and _pads(layer)):
                return False
            shifted = _scale_inputs(layer, weight, values)
            if layer.op_type == "Conv":
                change = shifted.sum(axis=tuple(range(1, shifted.ndim)))
            else:
                change = shifted.sum(axis=1 if _transposed(layer) else 0)
            _set_weights(graph, layer, weight, _bias(layer, change.size) + change)
        layer.replace_input_with(0, x)
        if not is_graph_output(node.outputs[0]) and not node.outputs[0].uses():
            graph.remove([node], safe=True)
        return True
    return False


def _pads(layer: ir.Node) -> bool:
    attrs = attributes(layer)
    return any(attrs.get("pads", [])) or attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID", "")


def _pass_offset(graph: ir.Graph, node: ir.Node) -> bool:
    """Case 5: the node is an Add between a Mul and a Conv."""
    added = _operand(node, "Add")
    layer = sole_consumer(node.outputs[0])
    if added is None or not _is_layer(layer, "Conv") or layer is None or layer.inputs[0] is not node.outputs[0]:
        return False
    factor_node = added[0].producer()
    scaled = _operand(factor_node, "Mul") if factor_node is not None else None
    if scaled is None or factor_node is None or sole_consumer(added[0]) is not node or not np.all(scaled[1]):
        return False
    rank = _rank(node.outputs[0])
    if rank is None or _rank(scaled[0]) != rank or _per_input(layer, scaled[1], rank) is None:
        return False
    quotient = added[1].astype(np.float64) / scaled[1]
    moved = _binary(graph, node, "Add", scaled[0], quotient)
    replace(node.outputs[0], _binary(graph, node, "Mul", moved, scaled[1]), [node, factor_node])
    return True
