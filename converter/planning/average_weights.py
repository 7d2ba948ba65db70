"""Weights of averages: rounded so that each channel's weights still add up to what they did.

A token mixer's weights are one number for the middle of the window and another for all places around it. Rounding shifts the latter all
alike, and the sum by up to four steps. Numbers that change little from place to place see the sum alone, so the largest weight, the one
in the middle, makes up for the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.graph.marks import AVERAGE
from converter.graph.queries import constant
from converter.plan.choice import Choice
from converter.plan.constants import codes_to_text
from converter.plan.records import Plan
from converter.quantization.parameters import QuantParams

__all__ = ["summing_codes", "with_average_codes", "with_average_scales"]

_LEFT = 4
"""Codes that the largest weight leaves to make up with: half a step for each of eight others."""


def with_average_scales(model: ir.Model, choice: Choice) -> Choice:
    """The choice with scales for the weights of averages that leave their largest weight some codes.

    Args:
        model: canonical float model.
        choice: a method's.
    """
    constants = dict(choice.constants)
    for name, weight in _averages(model):
        grid = constants.get((name, 1))
        if grid is not None:
            largest = np.maximum(np.abs(weight.reshape(len(grid.scale), -1)).max(1), np.finfo(np.float32).tiny)
            constants[name, 1] = replace(grid, scale=tuple(float(s) for s in (largest / (grid.qmax - _LEFT)).astype(np.float32)))
    return replace(choice, constants=constants)


def with_average_codes(model: ir.Model, plan: Plan) -> Plan:
    """The plan with codes for the weights of averages that run in integer, unless it has some."""
    ops = dict(plan.ops)
    for name, weight in _averages(model):
        grid = ops[name].constants.get(1) if ops[name].runs == "integer" else None
        if grid is not None and not ops[name].codes:
            ops[name] = replace(ops[name], codes=codes_to_text(summing_codes(weight, grid)))
    return plan.with_ops(plan.tensors, ops)


def summing_codes(weight: npt.NDArray[np.float32], grid: QuantParams) -> npt.NDArray[np.int8]:
    """Codes, to the nearest but for the largest weight of each channel, which gives the sum of the codes what it lacks.

    Args:
        weight: [channels, ...].
        grid: of the weights, symmetric, one scale for each channel or for all.

    Returns:
        in the weight's shape.
    """
    scaled = weight.reshape(len(weight), -1).astype(np.float64) / np.resize(np.asarray(grid.scale), len(weight))[:, None]
    codes = np.rint(scaled)
    largest = np.abs(scaled).argmax(1)
    codes[np.arange(len(codes)), largest] += np.rint(scaled.sum(1)) - codes.sum(1)
    return np.clip(codes, grid.qmin, grid.qmax).astype(np.int8).reshape(weight.shape)


def _averages(model: ir.Model) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    for node in model.graph:
        weight = constant(node.inputs[1]) if AVERAGE in node.metadata_props else None
        if weight is not None:
            yield str(node.name), weight
