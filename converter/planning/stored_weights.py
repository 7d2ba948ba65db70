"""Weights of layers that are computed in float, stored as 8-bit codes all the same, so that the file is small.

The runtime makes numbers of them once, when it loads the file, and then computes as it does with float weights. So no target has a price
for it: it costs a rounding of the weights, with one scale for each output, and nothing at an inference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.forms.form import CONTAINER_BITS
from converter.graph.operator_sets import RECURRENT
from converter.graph.queries import attributes, constant, is_float
from converter.plan.records import Plan
from converter.quantization.parameters import SMALLEST_SCALE, QuantParams, symmetric_params

__all__ = ["bytes_to_save", "storable_weights", "with_stored_weights"]

_LEAST_SAVED = 0.5
"""Of a constant's bytes; less is not worth two more nodes in the file."""

_NODES = 512
"""Bytes that the two nodes take, with their names."""

_SMALLEST = 127 * SMALLEST_SCALE
"""Largest weight of an output below which there is no scale for them, and they would become zero."""


def with_stored_weights(model: ir.Model, plan: Plan) -> Plan:
    """The plan with codes for all weights of layers in float that are smaller then.

    Args:
        model: canonical, with the plan's transforms.
        plan: assigned for it.
    """
    return replace(plan, stored={name: grid for name, grid, _ in _worthwhile(model, plan)})


def bytes_to_save(model: ir.Model, plan: Plan) -> int:
    """How many bytes smaller the file of a plan would be with codes for weights that it leaves in float."""
    return sum(saved for name, _, saved in _worthwhile(model, plan) if name not in plan.stored)


def _worthwhile(model: ir.Model, plan: Plan) -> Iterator[tuple[str, QuantParams, int]]:
    """Name, grid, and bytes saved, of each constant that is much smaller as codes."""
    for name, axis in storable_weights(model, plan).items():
        array = constant(model.graph.initializers[name])
        assert array is not None
        largest = np.abs(np.moveaxis(array, axis, 0)).reshape(array.shape[axis], -1).max(1)
        saved = array.nbytes - array.size - largest.nbytes - _NODES
        if saved >= _LEAST_SAVED * array.nbytes and not ((largest > 0.0) & (largest < _SMALLEST)).any():
            yield name, symmetric_params(largest, bits=CONTAINER_BITS, axis=axis), saved


def storable_weights(model: ir.Model, plan: Plan) -> dict[str, int]:
    """Constants that layers in float read as their weights, and nothing else does; the axis of the layers' outputs, by name.

    Operators in integer have codes of their own of what they read.
    """
    axes: defaultdict[str, set[int | None]] = defaultdict(set)
    for node in model.graph:
        op = plan.ops.get(str(node.name))
        if op is not None and op.runs == "integer":
            continue
        weights = dict(_weights(node))
        for index, value in enumerate(node.inputs):
            if value is not None and value.is_initializer() and is_float(value):
                axes[str(value.name)].add(weights.get(index))
    returned = {str(value.name) for value in model.graph.outputs}
    found = {name: each.pop() for name, each in axes.items() if len(each) == 1 and name not in returned}
    return {name: axis for name, axis in found.items() if axis is not None and _is_sound(constant(model.graph.initializers[name]))}


def _weights(node: ir.Node) -> Iterator[tuple[int, int]]:
    """(input index, axis of outputs) of what a node may have for weights."""
    rank = [0 if value is None or value.shape is None else len(value.shape) for value in node.inputs]
    if node.op_type == "Conv":
        yield 1, 0
    elif node.op_type == "ConvTranspose":
        yield 1, 1
    elif node.op_type == "Gemm":
        yield 1, 0 if attributes(node).get("transB", 0) else 1
    elif node.op_type == "MatMul":
        # of a vector on the right every number meets the same output
        yield from ((index, rank[index] - 2 + index) for index in (0, 1) if rank[index] > 1)
    elif node.op_type in RECURRENT:
        yield from ((1, 1), (2, 1))


def _is_sound(array: npt.NDArray[np.float32] | None) -> bool:
    return array is not None and array.size > 0 and bool(np.isfinite(array).all())
