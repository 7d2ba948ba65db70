"""Biases as int32: the scale is that of the products they are added to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.quantization.parameters import QuantParams

__all__ = ["bias_scale", "integer_bias"]

_LARGEST = 2**30
"""Half of int32's range: the other half is left to the sum of products."""


def bias_scale(input_scale: float, weight_scale: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """float32(s_x) * float32(s_w) per channel, as the runtime computes it; float32 [channels]."""
    return np.float32(input_scale) * np.asarray(weight_scale, np.float32)


def integer_bias(
    bias: npt.NDArray[Any], input_scale: float, weights: QuantParams
) -> tuple[QuantParams, npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Quantize a bias.

    A channel whose bias would not fit int32, such as a dead one with tiny weights, gets a coarser weight scale.

    Args:
        bias: float32 [channels].
        input_scale: of the layer's input.
        weights: grid of its weights, one scale per channel or a single one.

    Returns:
        the weight grid, widened where needed; int32 [channels]; the scale of that, float32 [channels] or [1].
    """
    scales = np.asarray(weights.scale, np.float64)
    needed = np.abs(bias.astype(np.float64)) / (float(np.float32(input_scale)) * _LARGEST)
    if weights.axis is None:
        needed = needed.max(keepdims=True)
    widened = np.maximum(scales, needed * (1 + 1e-6)).astype(np.float32)
    grid = replace(weights, scale=tuple(float(s) for s in widened))
    scale = bias_scale(input_scale, grid.scale)
    codes = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    return grid, codes.astype(np.int32), scale
