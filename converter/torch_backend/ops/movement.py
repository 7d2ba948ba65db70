"""Shapes and data movement."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from converter.torch_backend.ops.table import Attributes, Inputs, Rule, Table, Tensor, UnknownOperatorError, integers, optional

__all__ = ["TABLE"]


def _pad(x: Inputs, a: Attributes) -> Tensor:
    result = x[0]
    pads, value, axes = integers(x[1]), optional(x, 2), optional(x, 3)
    dims = [axis % result.ndim for axis in (integers(axes) if axes is not None else range(result.ndim))]
    mode = a.get("mode", "constant")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise UnknownOperatorError(f"operator 'Pad' with mode={mode}")
    for i, axis in enumerate(dims):
        begin, end = pads[i], pads[len(dims) + i]
        if not begin and not end:
            continue
        if mode == "constant":
            around = [0, 0] * (result.ndim - 1 - axis) + [begin, end]
            result = functional.pad(result, around, value=0 if value is None else value.item())
        else:
            result = result.index_select(axis, _border(result.shape[axis], begin, end, mode))
    return result


def _border(size: int, begin: int, end: int, mode: str) -> Tensor:
    """For every place of a padded axis, the place of the axis that it repeats."""
    place = torch.arange(-begin, size + end)
    if mode == "edge":
        return place.clamp(0, size - 1)
    if mode == "wrap":
        return place.remainder(size)
    period = max(2 * (size - 1), 1)
    return (size - 1) - ((size - 1) - place.remainder(period)).abs()


def _reshape(x: Inputs, a: Attributes) -> Tensor:
    wanted = integers(x[1])
    if not a.get("allowzero", 0):
        wanted = [x[0].shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    return x[0].reshape(wanted)


def _squeeze(x: Inputs, _: Attributes) -> Tensor:
    axes = optional(x, 1)
    dims = [i for i, n in enumerate(x[0].shape) if n == 1] if axes is None else integers(axes)
    return torch.squeeze(x[0], dim=tuple(dims))


def _unsqueeze(x: Inputs, _: Attributes) -> Tensor:
    axes = integers(x[1])
    rank = x[0].ndim + len(axes)
    result = x[0]
    for axis in sorted(i % rank for i in axes):
        result = result.unsqueeze(axis)
    return result


def _flatten(x: Inputs, a: Attributes) -> Tensor:
    axis = a.get("axis", 1)
    axis = axis + x[0].ndim if axis < 0 else axis
    return x[0].reshape(math.prod(x[0].shape[:axis]), math.prod(x[0].shape[axis:]))


def _split(x: Inputs, a: Attributes) -> list[Tensor]:
    axis, sizes = a.get("axis", 0), optional(x, 1)
    if sizes is not None:
        return list(torch.split(x[0], integers(sizes), dim=axis))
    if "num_outputs" not in a:
        raise UnknownOperatorError("operator 'Split' without sizes and num_outputs")
    return list(torch.split(x[0], math.ceil(x[0].shape[axis] / a["num_outputs"]), dim=axis))


def _slice(x: Inputs, _: Attributes) -> Tensor:
    starts, ends = integers(x[1]), integers(x[2])
    axes = integers(x[3]) if optional(x, 3) is not None else list(range(len(starts)))
    steps = integers(x[4]) if optional(x, 4) is not None else [1] * len(starts)
    result = x[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        chosen = range(result.shape[axis])[slice(start, end, step)]
        result = result.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64))
    return result


def _gather(x: Inputs, a: Attributes) -> Tensor:
    axis = a.get("axis", 0) % x[0].ndim
    index = torch.where(x[1] < 0, x[1] + x[0].shape[axis], x[1])
    picked = x[0].index_select(axis, index.reshape(-1))
    return picked.reshape([*x[0].shape[:axis], *index.shape, *x[0].shape[axis + 1 :]])


def _expand(x: Inputs, _: Attributes) -> Tensor:
    wanted = integers(x[1])
    shape = [1] * (len(wanted) - x[0].ndim) + list(x[0].shape)
    wanted = [1] * (len(shape) - len(wanted)) + wanted
    return x[0].expand([n if w == 1 else w for n, w in zip(shape, wanted, strict=True)])


def _depth_to_space(x: Inputs, a: Attributes) -> Tensor:
    block = a["blocksize"]
    n, c, h, w = x[0].shape
    if a.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x[0], block)
    return x[0].reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, -1, h * block, w * block)


def _space_to_depth(x: Inputs, a: Attributes) -> Tensor:
    block = a["blocksize"]
    n, c, h, w = x[0].shape
    split = x[0].reshape(n, c, h // block, block, w // block, block)
    return split.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, h // block, w // block)


def _constant_of_shape(x: Inputs, a: Attributes) -> Tensor:
    value = torch.from_numpy(np.array(a["value"])) if "value" in a else torch.zeros(1)
    return value.reshape(()).expand(integers(x[0])).clone()


TABLE: Table = {
    "Concat": Rule(lambda x, a: torch.cat(list(x), dim=a["axis"]), "axis"),
    "ConstantOfShape": Rule(_constant_of_shape, "value"),
    "DepthToSpace": Rule(_depth_to_space, "blocksize mode"),
    "Expand": Rule(_expand),
    "Flatten": Rule(_flatten, "axis"),
    "Gather": Rule(_gather, "axis"),
    "Pad": Rule(_pad, "mode"),
    "Range": Rule(lambda x, _: torch.arange(x[0].item(), x[1].item(), x[2].item(), dtype=x[0].dtype)),
    "Reshape": Rule(_reshape, "allowzero"),
    "Shape": Rule(lambda x, a: torch.tensor(list(x[0].shape)[a.get("start", 0) : a.get("end")], dtype=torch.int64), "start end"),
    "Size": Rule(lambda x, _: torch.tensor(x[0].numel(), dtype=torch.int64)),
    "Slice": Rule(_slice),
    "SpaceToDepth": Rule(_space_to_depth, "blocksize"),
    "Split": Rule(_split, "axis num_outputs"),
    "Squeeze": Rule(_squeeze),
    "Tile": Rule(lambda x, _: torch.tile(x[0], integers(x[1]))),
    "Transpose": Rule(lambda x, a: x[0].permute(a.get("perm", list(range(x[0].ndim))[::-1])), "perm"),
    "Unsqueeze": Rule(_unsqueeze),
}
