"""Layer normalizations that only normalize: the layers behind them take in their factor and their offset.

``W (gamma * n + beta) + b = (W gamma) n + (b + W beta)``. What is left is an ``InstanceNormalization`` of [batch, tokens, channels] with
tokens in the place of channels, for which the runtime has vector instructions: 7 instructions for each number of 64 channels on a
Cortex-A76, where its LayerNormalization takes 16. Moving the factor on was proposed for the sake of ranges (Outlier Suppression,
arXiv 2209.13325, section 4.1): it makes outliers larger.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from converter.graph.builder import GraphBuilder
from converter.graph.operator_sets import LAYERS, REARRANGEMENT
from converter.graph.queries import attributes, constant, consumers, data_inputs, is_graph_output, sole_consumer
from converter.targets.costs import features, form_costs
from converter.targets.target import Target
from converter.torch_backend import ops as torch_ops
from converter.transforms.transform import GraphFacts

__all__ = ["find_plain", "make_plain"]

Array = npt.NDArray[Any]

_LARGEST = 4_000_000
"""Numbers of a tensor whose channels are followed."""


@dataclass(frozen=True)
class _Reader:
    """A layer that reads a normalized tensor, perhaps moved.

    Attributes:
        layer: Conv, Gemm or MatMul.
        channels: which of the normalized channels each of its input channels is, int64.
        adds: the sum with a constant behind a MatMul, which takes what would be its bias; None for other layers, or where there is none.
    """

    layer: ir.Node
    channels: Array
    adds: ir.Node | None


def find_plain(model: ir.Model, facts: GraphFacts, target: Target) -> tuple[str, ...]:
    """Names of the layer normalizations that can be made plain and cost less then, in graph order.

    A target says what an InstanceNormalization takes for each channel (``group``), or nothing is found.

    Args:
        model: canonical float model.
        facts: shapes of its tensors, and what stays as it is.
        target: for the costs in float.
    """
    cost = target.costs.get("InstanceNormalization")
    if cost is None or "group" not in cost.float:
        return ()
    norms = (node for node in model.graph if node.op_type == "LayerNormalization")
    return tuple(str(node.name) for node in norms if _pays(node, facts, target) and _taken_in(node, facts) is not None)


def make_plain(model: ir.Model, facts: GraphFacts, names: Collection[str]) -> ir.Model:
    """A copy of a model in which some layer normalizations only normalize; it computes the same. Names of nodes and tensors stay.

    Raises:
        ValueError: there is no such operator, or what reads it cannot take in its factor and its offset.
    """
    result: ir.Model = ir.from_proto(ir.to_proto(model))
    nodes, builder = {str(node.name): node for node in result.graph}, GraphBuilder(result.graph)
    for name in names:
        node = nodes.get(name)
        taken = _taken_in(node, facts) if node is not None and node.op_type == "LayerNormalization" else None
        if node is None or taken is None:
            raise ValueError(f"operator '{name}' is no layer normalization whose factor and offset layers take in")
        for layer, index, array in taken:
            if len(layer.inputs) <= index:
                layer.resize_inputs(index + 1)
            layer.replace_input_with(index, builder.initializer(f"{name}_{layer.name}_{index}", array))
        _write(builder, node)
    return result


def _write(builder: GraphBuilder, node: ir.Node) -> None:
    x, epsilon = node.inputs[0], float(attributes(node).get("epsilon", 1e-5))
    assert x is not None and x.shape is not None and isinstance(x.shape[1], int)
    node.op_type = "InstanceNormalization"
    node.attributes.clear()
    node.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon)
    node.resize_inputs(3)
    for index, what, number in ((1, "ones", 1.0), (2, "zeros", 0.0)):
        node.replace_input_with(index, builder.initializer(f"{node.name}_{what}", np.full(x.shape[1], number, np.float32)))


def _pays(node: ir.Node, facts: GraphFacts, target: Target) -> bool:
    shape = facts.shapes.get(str(node.outputs[0].name), ())
    if len(shape) != 3:
        return False
    found = features(node, facts.shapes)
    plain = found | {"group": float(math.prod(shape[:2]))}
    return form_costs("InstanceNormalization", plain, target)[0] < form_costs("LayerNormalization", found, target)[0]


def _taken_in(node: ir.Node, facts: GraphFacts) -> list[tuple[ir.Node, int, Array]] | None:
    """What takes in the factor and the offset: (node, input index, its new float32 constant); None if something cannot."""
    x, output = node.inputs[0], node.outputs[0]
    gamma, shape = constant(node.inputs[1]), facts.shapes.get(str(output.name), ())
    beta = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    tokens = x.shape[1] if x is not None and x.shape is not None and len(x.shape) == 3 else None
    if gamma is None or (beta is None and len(node.inputs) > 2 and node.inputs[2] is not None) or len(shape) != 3:
        return None
    if not isinstance(tokens, int) or attributes(node).get("axis", -1) not in (-1, 2) or gamma.shape != shape[2:]:
        return None
    if len(node.outputs) > 1 or is_graph_output(output) or str(node.name) in facts.excluded or math.prod(shape) > _LARGEST:
        return None
    found: list[tuple[ir.Node, int, Array]] = []
    for user, index in consumers(output):
        reader = _reader(output, user, index, shape, facts)
        changed = None if reader is None else _changed(reader, gamma, np.zeros_like(gamma) if beta is None else beta)
        if changed is None:
            return None
        found += changed
    return found or None


def _reader(value: ir.Value, node: ir.Node, index: int, shape: tuple[int, ...], facts: GraphFacts) -> _Reader | None:
    """The layer at the end of a chain that only moves numbers."""
    labels = torch.arange(shape[-1]).expand(shape)
    while node.op_type in REARRANGEMENT and index == 0 and [i for i, _ in data_inputs(node)] == [0] and len(node.outputs) == 1:
        others = [None if v is None else constant(v) for v in node.inputs[1:]]
        if any(v is not None and array is None for v, array in zip(node.inputs[1:], others, strict=True)):
            return None
        try:
            moved = [None if array is None else torch.from_numpy(np.array(array)) for array in others]
            (labels,) = torch_ops.apply(node.op_type, [labels, *moved], attributes(node))
        except (torch_ops.UnknownOperatorError, RuntimeError):
            return None
        value = node.outputs[0]
        follower = sole_consumer(value)
        if follower is None or is_graph_output(value):
            return None
        (node, index), *_ = consumers(value)
    if node.op_type not in LAYERS or index != 0 or str(node.name) in facts.excluded:
        return None
    rows = labels.movedim(1 if node.op_type == "Conv" else -1, -1)
    rows = rows.reshape(-1, rows.shape[-1])
    if not bool((rows == rows[0]).all()):
        return None
    follower = sole_consumer(node.outputs[0]) if node.op_type == "MatMul" else None
    adds = follower if follower is not None and follower.op_type == "Add" and str(follower.name) not in facts.excluded else None
    return _Reader(node, rows[0].numpy(), adds)


def _changed(reader: _Reader, gamma: Array, beta: Array) -> list[tuple[ir.Node, int, Array]] | None:
    """The constants with which a layer takes in factor and offset; None if it cannot."""
    layer, attrs = reader.layer, attributes(reader.layer)
    weight = constant(layer.inputs[1])
    if weight is None or attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) != 1.0 or attrs.get("transA", 0):
        return None
    factor, offset = (a.astype(np.float64)[reader.channels] for a in (gamma, beta))
    scaled, sums = _applied(layer.op_type, weight.astype(np.float64), (factor, offset), attrs)
    if scaled is None or sums is None:
        return None
    with np.errstate(over="ignore"):
        found = [(layer, 1, scaled.astype(np.float32))]
        if np.any(offset):
            bias = _with_bias(reader, sums)
            if bias is None:
                return None
            found.append(bias)
    return found if all(np.isfinite(array).all() for _, _, array in found) else None


def _applied(op_type: str, weight: Array, taken: tuple[Array, Array], attrs: dict[str, Any]) -> tuple[Array | None, Array | None]:
    """Weights with the factor in them, and what the offset adds to each output channel."""
    factor, offset = taken
    if op_type != "Conv":
        if weight.ndim != 2:
            return None, None
        across = weight if attrs.get("transB", 0) else weight.T
        scaled = across * factor
        return (scaled if attrs.get("transB", 0) else scaled.T), across @ offset
    padded = any(attrs.get("pads", ())) or attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID", "")
    if padded and np.any(offset):  # the border is zero and has no offset
        return None, None
    groups = int(attrs.get("group", 1))

    def spread(numbers: Array) -> Array:
        each = np.repeat(numbers.reshape(groups, -1), weight.shape[0] // groups, axis=0)
        return each.reshape(*each.shape, *[1] * (weight.ndim - 2))

    return weight * spread(factor), (weight * spread(offset)).sum(axis=tuple(range(1, weight.ndim)))


def _with_bias(reader: _Reader, sums: Array) -> tuple[ir.Node, int, Array] | None:
    """The bias and what is added to it, where the layer or the sum behind it has one."""
    layer = reader.layer
    if layer.op_type == "MatMul":
        index = next((i for i in (0, 1) if reader.adds is not None and constant(reader.adds.inputs[i]) is not None), None)
        if reader.adds is None or index is None:
            return None
        layer = reader.adds
    else:
        index = 2
    value = layer.inputs[index] if len(layer.inputs) > index else None
    bias = np.zeros(len(sums)) if value is None else constant(value)
    if bias is None or bias.size not in (1, len(sums)) or (bias.ndim and bias.size > 1 and bias.shape[-1] != len(sums)):
        return None
    return layer, index, (bias.astype(np.float64).reshape(-1) + sums).astype(np.float32)
