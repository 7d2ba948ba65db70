"""Linear layers that read the same tensor and are only added up become one.

``Add(layer(x; W1, b1), layer(x; W2, b2))`` is ``layer(x; W1 + W2, b1 + b2)`` for two Gemms, two Convs or two MatMuls of
the same attributes and weights of one shape. The two heads that distillation leaves, averaged, are the case that matters:
an integer Add would round the class scores to eight bits, where a single layer gives them as they accumulate.
A layer whose output something else reads too is left alone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.canonicalise.folding.layers import Array, bias_of, is_layer, set_weights
from converter.graph.builder import GraphBuilder, rewrite_nodes
from converter.graph.queries import constant, sole_consumer

__all__ = ["add_parallel_layers"]


def add_parallel_layers(model: ir.Model) -> list[str]:
    """Merge the layers whose outputs are only added; returns the names of the sums.

    A sum of more than two ends as one layer too: the merged layer comes before the next Add.
    """
    return rewrite_nodes(model, {"Add": _merge})


def _merge(builder: GraphBuilder, add: ir.Node) -> bool:
    first, second = (_layer_before(add, index) for index in (0, 1))
    if first is None or second is None or first is second or not _alike(first, second):
        return False
    weight = _constant(first, 1).astype(np.float64) + _constant(second, 1)
    bias = _sum_of_biases(first, second)
    kept, spare = sorted((first, second), key=_has_bias, reverse=True)
    if not set_weights(builder, kept, weight, bias):
        return False
    builder.replace(add.outputs[0], kept.outputs[0], [add, spare])
    return True


def _layer_before(add: ir.Node, index: int) -> ir.Node | None:
    value = add.inputs[index]
    layer = None if value is None else value.producer()
    if value is None or layer is None or not is_layer(layer, "Conv", "Gemm", "MatMul"):
        return None
    return layer if sole_consumer(value) is add else None


def _alike(first: ir.Node, second: ir.Node) -> bool:
    same_weights = _constant(first, 1).shape == _constant(second, 1).shape
    attributes = [{a.name: a.value for a in n.attributes.values()} for n in (first, second)]
    return first.op_type == second.op_type and first.inputs[0] is second.inputs[0] and same_weights and attributes[0] == attributes[1]


def _constant(layer: ir.Node, index: int) -> Array:
    array = constant(layer.inputs[index])
    assert array is not None
    return array


def _has_bias(layer: ir.Node) -> bool:
    return len(layer.inputs) > 2 and layer.inputs[2] is not None


def _sum_of_biases(first: ir.Node, second: ir.Node) -> Array | None:
    channels = max((_constant(n, 2).size for n in (first, second) if _has_bias(n)), default=0)
    biases = [b for b in (bias_of(n, channels) for n in (first, second)) if b is not None]
    return sum(biases[1:], biases[0]) if biases else None
