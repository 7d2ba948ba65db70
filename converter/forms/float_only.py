"""What no integer grid can stand for: tensors that have to stay float, and weights, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.calibration.observer import CalibrationStatistics, TensorStats
from converter.graph.queries import constant, scalar
from converter.quantization.parameters import SMALLEST_SCALE

__all__ = ["STEPS", "flaws_of", "reach", "weights_vanish"]

STEPS = 255
"""Of a grid of 8 bits."""

_NOT_ZERO: Mapping[str, tuple[int, ...]] = {"Div": (1,), "Log": (0,), "Pow": (0,), "Reciprocal": (0,), "Sqrt": (0,)}
"""Operators, and which of their inputs, whose result is infinite at zero, or leads to a division by zero."""


def flaws_of(model: ir.Model, seen: CalibrationStatistics) -> dict[str, str]:
    """Tensors that have to stay float, and why, as said of who reads or writes them."""
    found = {name: f"of a tensor that it reads or writes, {stats.flaw}" for name, stats in seen.tensors.items() if stats.flaw}
    small = (name for name, stats in seen.tensors.items() if 0.0 < reach(stats) < STEPS * SMALLEST_SCALE)
    found |= dict.fromkeys(small, "of a tensor that it reads or writes, the numbers are too small for any scale")
    for node in model.graph:
        for index in _NOT_ZERO.get(node.op_type, ()) if not _is_power(node) else ():
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is None or constant(value) is not None:
                continue
            stats = seen.tensors.get(str(value.name))
            if stats is not None and _becomes_zero(value, stats):
                found.setdefault(str(value.name), f"small numbers of a tensor would become zero, which {node.op_type} must not read")
    return found


def _is_power(node: ir.Node) -> bool:
    """True for a whole positive power, which takes zero as any other number."""
    exponent = scalar(node.inputs[1]) if node.op_type == "Pow" else None
    return exponent is not None and exponent > 0.0 and exponent == math.floor(exponent)


def _becomes_zero(value: ir.Value, stats: TensorStats) -> bool:
    """True for a tensor that is never zero, if on a grid it would be: as seen, or as far as a guard against that lets it come."""
    step = reach(stats) / STEPS
    return (stats.minimum * stats.maximum > 0.0 and stats.nearest < step) or (stats.minimum >= 0.0 and 0.0 < _guard(value) < step)


def _guard(value: ir.Value) -> float:
    """The positive number that is added to what cannot be negative, or below which a tensor is cut off, or its root; 0 if there is none."""
    node = value.producer()
    if node is not None and node.op_type == "Sqrt" and node.inputs[0] is not None:
        return math.sqrt(_guard(node.inputs[0]))
    if node is None or node.op_type not in ("Add", "Max", "Clip"):
        return 0.0
    limits = [node.inputs[1]] if node.op_type == "Clip" and len(node.inputs) > 1 else node.inputs
    return next((number for number in map(scalar, limits) if number is not None and number > 0.0), 0.0)


def weights_vanish(rows: npt.NDArray[Any], node: ir.Node, seen: CalibrationStatistics) -> bool:
    """True if weights that no scale is small enough for make up a part of the output that shows.

    Args:
        rows: float32 [output channels, inputs].
        node: the layer.
        seen: for what it reads and writes.
    """
    largest = np.abs(rows).max(axis=1, initial=0.0)
    tiny = np.abs(rows[(largest > 0.0) & (largest < STEPS * SMALLEST_SCALE)], dtype=np.float64)
    read, written = (seen.tensors.get(str(v.name)) for v in (node.inputs[0], node.outputs[0]) if v is not None)
    if not tiny.size or read is None or written is None:
        return False
    return bool(tiny.sum(1).max() * max(-read.minimum, read.maximum) > reach(written) / (2 * STEPS))


def reach(stats: TensorStats) -> float:
    """Length of the range that a grid of the tensor covers, zero included."""
    return max(stats.maximum, 0.0) - min(stats.minimum, 0.0)
