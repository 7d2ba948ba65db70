"""Scales of the weights of averages, which are few numbers: so that both of them come out nearly whole.

A token mixer's weights are one number for the middle of the window and another for all places around it. Rounding shifts the latter all
alike, by up to half a step each, and the sum by up to four steps of 127. A scale of which one is a multiple and the other nearly so is
among those that are up to twice the smallest.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from converter.graph.marks import AVERAGE
from converter.graph.queries import constant
from converter.plan.choice import Choice
from converter.quantization.parameters import FloatArray

__all__ = ["average_scales", "with_average_scales"]

_FACTORS = np.linspace(1.0, 2.0, 129)


def with_average_scales(model: ir.Model, choice: Choice) -> Choice:
    """The choice with other scales for the weights of averages.

    Args:
        model: canonical float model.
        choice: a method's.
    """
    constants = dict(choice.constants)
    for node in model.graph:
        key = str(node.name), 1
        weight = constant(node.inputs[1]) if AVERAGE in node.metadata_props else None
        if weight is not None and key in constants:
            scales = average_scales(weight.reshape(len(weight), -1), constants[key].qmax)
            constants[key] = replace(constants[key], scale=tuple(float(np.float32(s)) for s in scales))
    return replace(choice, constants=constants)


def average_scales(weight: FloatArray, highest: int) -> FloatArray:
    """For each channel, the scale of least error in the sum of its weights and in each of them.

    Args:
        weight: [channels, places].
        highest: code.

    Returns:
        float64 [channels].
    """
    smallest = np.maximum(np.abs(weight.astype(np.float64)).max(1), np.finfo(np.float32).tiny) / highest
    tried = smallest * _FACTORS[:, None]
    off = np.rint(weight / tried[..., None]) * tried[..., None] - weight
    error = np.square(off.sum(-1)) + np.square(off).sum(-1)
    best: FloatArray = np.take_along_axis(tried, error.argmin(0)[None], 0)[0]
    return best
