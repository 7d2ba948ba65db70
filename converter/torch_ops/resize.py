"""Resize, one axis after the other, as the ONNX specification words it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from converter.torch_ops.table import Attributes, Inputs, Rule, Table, Tensor, UnknownOperatorError, integers, optional

__all__ = ["TABLE"]

_COORDINATES: Mapping[str, Callable[[Tensor, float, int, int], Tensor]] = {
    "half_pixel": lambda i, scale, n, m: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, scale, n, m: (i + 0.5) / scale - 0.5 if m > 1 else torch.zeros_like(i),
    "asymmetric": lambda i, scale, n, m: i / scale,
    "align_corners": lambda i, scale, n, m: i * (n - 1) / (m - 1) if m > 1 else torch.zeros_like(i),
}
"""Place in the input for places in the output, by (places, scale, input length, output length)."""

_NEAREST: Mapping[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda place: torch.ceil(place - 0.5),
    "round_prefer_ceil": lambda place: torch.floor(place + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def _resize(x: Inputs, a: Attributes) -> Tensor:
    result: Tensor = x[0]
    scales, sizes = optional(x, 2), optional(x, 3)
    axes = [axis % result.ndim for axis in a.get("axes", range(result.ndim))]
    lengths = [result.shape[axis] for axis in axes]
    if sizes is not None and sizes.numel():
        targets = integers(sizes)
        factors = [m / n for m, n in zip(targets, lengths, strict=True)]
    else:
        factors = [float(s) for s in scales]
        targets = [int(np.floor(np.float32(n) * np.float32(s))) for n, s in zip(lengths, factors, strict=True)]
    for axis, factor, target in zip(axes, factors, targets, strict=True):
        if factor != 1.0 or target != result.shape[axis]:
            result = _along(result, axis, factor, target, a)
    return result


def _along(x: Tensor, axis: int, factor: float, target: int, a: Attributes) -> Tensor:
    mode, where = a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel")
    rounding = a.get("nearest_mode", "round_prefer_floor")
    if mode not in _TAPS or where not in _COORDINATES or rounding not in _NEAREST:
        raise UnknownOperatorError(f"operator 'Resize' with mode={mode}, coordinate_transformation_mode={where}, nearest_mode={rounding}")
    length = x.shape[axis]
    place = _COORDINATES[where](torch.arange(target, dtype=torch.float32), factor, length, target)
    if mode == "nearest":
        return x.index_select(axis, _NEAREST[rounding](place).long().clamp(0, length - 1))
    result: Tensor | None = None
    shape = [-1 if d == axis else 1 for d in range(x.ndim)]
    for index, weight in _TAPS[mode](place.double(), a):
        part = x.index_select(axis, index.clamp(0, length - 1)) * weight.to(x.dtype).reshape(shape)
        result = part if result is None else result + part
    assert result is not None
    return result


def _linear(place: Tensor, _: Attributes) -> list[tuple[Tensor, Tensor]]:
    low = torch.floor(place)
    return [(low.long(), 1 - (place - low)), (low.long() + 1, place - low)]


def _cubic(place: Tensor, a: Attributes) -> list[tuple[Tensor, Tensor]]:
    c = a.get("cubic_coeff_a", -0.75)
    low = torch.floor(place)

    def weight(distance: Tensor) -> Tensor:
        near = ((c + 2) * distance - (c + 3)) * distance * distance + 1
        far = ((c * distance - 5 * c) * distance + 8 * c) * distance - 4 * c
        return torch.where(distance <= 1, near, far)

    return [(low.long() + k, weight((place - low - k).abs())) for k in (-1, 0, 1, 2)]


_TAPS: Mapping[str, Callable[[Tensor, Attributes], list[tuple[Tensor, Tensor]]]] = {
    "nearest": lambda place, a: [],
    "linear": _linear,
    "cubic": _cubic,
}
"""(index, weight) of the input places that make up a place in the output."""

TABLE: Table = {
    "Resize": Rule(
        _resize,
        "axes coordinate_transformation_mode cubic_coeff_a mode nearest_mode",
        {"antialias": 0, "exclude_outside": 0, "extrapolation_value": None, "keep_aspect_ratio_policy": "stretch"},
    )
}
