"""Tensors whose values follow from shapes alone, as the targets of views in a network with an open batch do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch

from converter.graph.operator_sets import READS_SHAPE_ONLY
from converter.graph.queries import attributes, constant
from converter.torch_backend import ops as torch_ops

__all__ = ["values_from_shapes"]

Tensor = torch.Tensor


def values_from_shapes(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """The computed tensors that no number of any input reaches, evaluated; without those whose operators torch lacks.

    Args:
        model: canonical float model.
        shapes: of its float tensors, by name, as observed.
    """
    known: dict[str, Tensor] = {}
    for node in model.graph:
        reads_shape = node.op_type in READS_SHAPE_ONLY
        inputs = [_shaped(v, known, shapes) if reads_shape else _value(v, known) for v in node.inputs]
        if not inputs or any(x is None and v is not None for x, v in zip(inputs, node.inputs, strict=True)):
            continue
        try:
            made = torch_ops.apply(node.op_type, inputs, attributes(node))
        except torch_ops.UnknownOperatorError:  # what follows from it is not known either
            continue
        known.update((str(value.name), x) for value, x in zip(node.outputs, made, strict=False))
    return known


def _value(value: ir.Value | None, known: Mapping[str, Tensor]) -> Tensor | None:
    if value is None or str(value.name) in known:
        return known.get(str(value.name)) if value is not None else None
    array = constant(value)
    return None if array is None else torch.from_numpy(np.array(array))


def _shaped(value: ir.Value | None, known: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> Tensor | None:
    """Any tensor of the value's shape."""
    shape = shapes.get(str(value.name)) if value is not None else None
    return _value(value, known) if shape is None else torch.zeros(()).expand(tuple(shape))
