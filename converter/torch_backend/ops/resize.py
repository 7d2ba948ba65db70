"""Resize, one axis after the other, as the ONNX specification words it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from converter.torch_backend.ops.table import Attributes, Inputs, Rule, Table, Tensor, UnknownOperatorError, integers, optional

__all__ = ["TABLE"]

_COORDINATES: Mapping[str, Callable[[Tensor, float, int, int], Tensor]] = {
    "half_pixel": lambda i, scale, n, m: (i + 0.5) / scale - 0.5,
    "half_pixel_symmetric": lambda i, scale, n, m: (i + 0.5) / scale - 0.5 + n / 2 * (1 - m / (scale * n)),
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
    result = x[0]
    region, scales, sizes = (optional(x, i) for i in (1, 2, 3))
    axes = [axis % result.ndim for axis in a.get("axes", range(result.ndim))]
    lengths = [result.shape[axis] for axis in axes]
    if sizes is not None and sizes.numel():
        factors, targets = _stretched(lengths, integers(sizes), a.get("keep_aspect_ratio_policy", "stretch"))
    else:
        factors = [float(s) for s in scales]
        targets = [int(np.floor(np.float32(n) * np.float32(s))) for n, s in zip(lengths, factors, strict=True)]
    crops = a.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    limits = region.tolist() if crops and region is not None else [0.0] * len(axes) + [1.0] * len(axes)
    for place, (axis, factor, target) in enumerate(zip(axes, factors, targets, strict=True)):
        if crops:
            result = _cropped(result, axis, (limits[place], limits[len(axes) + place]), factor, target, a)
        elif factor != 1.0 or target != result.shape[axis]:
            where = a.get("coordinate_transformation_mode", "half_pixel")
            if where not in _COORDINATES:
                raise UnknownOperatorError(f"operator 'Resize' with coordinate_transformation_mode={where}")
            steps = torch.arange(target, dtype=torch.float32)
            result = _along(result, axis, _COORDINATES[where](steps, factor, result.shape[axis], target), factor, a)
    return result


def _stretched(lengths: Sequence[int], sizes: Sequence[int], policy: str) -> tuple[list[float], list[int]]:
    """Factors and sizes that come out, by axis."""
    factors = [m / n for m, n in zip(sizes, lengths, strict=True)]
    if policy == "stretch":
        return factors, list(sizes)
    if policy not in ("not_larger", "not_smaller"):
        raise UnknownOperatorError(f"operator 'Resize' with keep_aspect_ratio_policy={policy}")
    factor = np.float32(min(factors) if policy == "not_larger" else max(factors))
    return [float(factor)] * len(lengths), [int(np.floor(factor * np.float32(n) + np.float32(0.5))) for n in lengths]


def _cropped(x: Tensor, axis: int, region: tuple[float, float], factor: float, target: int, a: Attributes) -> Tensor:
    """A part of an axis, as shares of its length; what lies outside is one number."""
    (start, end), last = region, x.shape[axis] - 1
    steps = torch.arange(target, dtype=torch.float32)
    place = start * last + steps * (end - start) * last / (target - 1) if target > 1 else 0.5 * (start + end) * last + 0 * steps
    outside = ((place < 0) | (place > last)).reshape([-1 if d == axis else 1 for d in range(x.ndim)])
    return torch.where(outside, a.get("extrapolation_value", 0.0), _along(x, axis, place, factor, a))


def _along(x: Tensor, axis: int, place: Tensor, factor: float, a: Attributes) -> Tensor:
    mode, rounding = a.get("mode", "nearest"), a.get("nearest_mode", "round_prefer_floor")
    if mode not in ("nearest", *_KERNELS) or rounding not in _NEAREST:
        raise UnknownOperatorError(f"operator 'Resize' with mode={mode}, nearest_mode={rounding}")
    last = x.shape[axis] - 1
    if mode == "nearest":
        return x.index_select(axis, _NEAREST[rounding](place).long().clamp(0, last))
    index, weights = _taps(place.double(), last, 1 / factor if a.get("antialias", 0) and factor < 1 else 1.0, a)
    shape = [-1 if d == axis else 1 for d in range(x.ndim)]
    parts = (x.index_select(axis, i.clamp(0, last)) * w.to(x.dtype).reshape(shape) for i, w in zip(index, weights, strict=True))
    result: Tensor = functools.reduce(torch.add, parts)
    return result


def _taps(place: Tensor, last: int, wider: float, a: Attributes) -> tuple[Tensor, Tensor]:
    """Indices and weights of the input places that make up each place in the output; both [taps, places].

    Args:
        place: in the input, [places].
        last: index of the input.
        wider: by how much antialiasing widens the kernel.
        a: attributes.
    """
    kernel, reach = _KERNELS[a["mode"]]
    first = torch.floor(place + 1 - reach * wider)
    index = first.long() + torch.arange(2 * reach if wider == 1 else math.ceil(2 * reach * wider) + 1)[:, None]
    weights = kernel((index - place).abs() / wider, a)
    if a.get("exclude_outside", 0):
        weights = torch.where((index < 0) | (index > last), torch.zeros_like(weights), weights)
    return index, weights / weights.sum(0)


def _cubic(distance: Tensor, a: Attributes) -> Tensor:
    c = a.get("cubic_coeff_a", -0.75)
    near = ((c + 2) * distance - (c + 3)) * distance * distance + 1
    far = ((c * distance - 5 * c) * distance + 8 * c) * distance - 4 * c
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))


_KERNELS: Mapping[str, tuple[Callable[[Tensor, Attributes], Tensor], int]] = {
    "linear": (lambda distance, _: torch.clamp(1 - distance, min=0), 1),
    "cubic": (_cubic, 2),
}
"""Weight of an input place by its distance, and the distance at which it vanishes."""

TABLE: Table = {
    "Resize": Rule(
        _resize,
        "antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value keep_aspect_ratio_policy mode"
        " nearest_mode",
    )
}
