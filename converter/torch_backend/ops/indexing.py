"""Operators that pick, place, sort or add up by position."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from converter.torch_backend.ops.table import Attributes, Inputs, Rule, Table, Tensor, UnknownOperatorError, integers, optional

__all__ = ["TABLE"]

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _from_front(index: Tensor, size: int) -> Tensor:
    """Indices with those counted from the end turned around, int64."""
    index = index.long()
    return torch.where(index < 0, index + size, index)


def _gather_elements(x: Inputs, a: Attributes) -> Tensor:
    axis = a.get("axis", 0)
    return torch.gather(x[0], axis, _from_front(x[1], x[0].shape[axis]))


def _put(op_type: str, x: Tensor, axis: int, index: Tensor, updates: Tensor, a: Attributes) -> Tensor:
    reduction = a.get("reduction", "none")
    if reduction == "none":
        return torch.scatter(x, axis, index, updates)
    if reduction not in _REDUCTIONS:
        raise UnknownOperatorError(f"operator '{op_type}' with reduction={reduction}")
    return torch.scatter_reduce(x, axis, index, updates, _REDUCTIONS[reduction], include_self=True)


def _scatter_elements(x: Inputs, a: Attributes) -> Tensor:
    axis = a.get("axis", 0)
    return _put("ScatterElements", x[0], axis, _from_front(x[1], x[0].shape[axis]), x[2], a)


def _rows(index: Tensor, sizes: Sequence[int]) -> Tensor:
    """Index tuples in the last axis as places in the flattened axes of those sizes."""
    place = torch.zeros_like(index[..., 0], dtype=torch.int64)
    for i, size in enumerate(sizes):
        place = place * size + _from_front(index[..., i], size)
    return place


def _gather_nd(x: Inputs, a: Attributes) -> Tensor:
    batch, depth = a.get("batch_dims", 0), x[1].shape[-1]
    shape = x[0].shape
    rest = shape[batch + depth :]
    flat = x[0].reshape(math.prod(shape[:batch]), math.prod(shape[batch : batch + depth]), math.prod(rest))
    place = _rows(x[1], shape[batch : batch + depth]).reshape(flat.shape[0], -1, 1)
    picked = torch.gather(flat, 1, place.expand(-1, -1, flat.shape[2]))
    return picked.reshape(*x[1].shape[:-1], *rest)


def _scatter_nd(x: Inputs, a: Attributes) -> Tensor:
    depth, shape = x[1].shape[-1], x[0].shape
    flat = x[0].reshape(math.prod(shape[:depth]), math.prod(shape[depth:]))
    place = _rows(x[1], shape[:depth]).reshape(-1, 1).expand(-1, flat.shape[1])
    return _put("ScatterND", flat, 0, place, x[2].reshape(place.shape), a).reshape(shape)


def _top_k(x: Inputs, a: Attributes) -> list[Tensor]:
    """By a stable sort: of equal numbers the first one comes first."""
    axis, (count,) = a.get("axis", -1), integers(x[1].reshape(-1))
    values, places = torch.sort(x[0], dim=axis, descending=bool(a.get("largest", 1)), stable=True)
    return [values.narrow(axis, 0, count), places.narrow(axis, 0, count)]


def _one_hot(x: Inputs, a: Attributes) -> Tensor:
    (depth,) = integers(x[1].reshape(-1))
    axis = a.get("axis", -1)
    axis = axis + x[0].ndim + 1 if axis < 0 else axis
    place = torch.arange(depth).reshape(-1, *[1] * (x[0].ndim - axis))
    return torch.where(_from_front(x[0], depth).unsqueeze(axis) == place, x[2][1], x[2][0])


def _cumulative_sum(x: Inputs, a: Attributes) -> Tensor:
    (axis,), backwards = integers(x[1].reshape(-1)), a.get("reverse", 0)
    data = x[0].flip(axis) if backwards else x[0]
    if a.get("exclusive", 0):
        data = torch.cat([torch.zeros_like(data.narrow(axis, 0, 1)), data.narrow(axis, 0, data.shape[axis] - 1)], axis)
    total = torch.cumsum(data, axis, dtype=data.dtype)
    return total.flip(axis) if backwards else total


def _triangle(x: Inputs, a: Attributes) -> Tensor:
    offset = optional(x, 1)
    diagonal = 0 if offset is None else integers(offset.reshape(-1))[0]
    return torch.triu(x[0], diagonal) if a.get("upper", 1) else torch.tril(x[0], diagonal)


def _reverse_sequence(x: Inputs, a: Attributes) -> Tensor:
    """Turn around as many steps of each sequence as it has."""
    time, batch = a.get("time_axis", 0), a.get("batch_axis", 1)
    steps, length = torch.arange(x[0].shape[time]), x[1].long()
    around = [-1 if i == time else 1 for i in range(x[0].ndim)]
    across = [-1 if i == batch else 1 for i in range(x[0].ndim)]
    step, last = steps.reshape(around), length.reshape(across) - 1
    return torch.gather(x[0], time, torch.where(step <= last, last - step, step).expand(x[0].shape))


TABLE: Table = {
    "CumSum": Rule(_cumulative_sum, "exclusive reverse"),
    "GatherElements": Rule(_gather_elements, "axis"),
    "GatherND": Rule(_gather_nd, "batch_dims"),
    "OneHot": Rule(_one_hot, "axis"),
    "ReverseSequence": Rule(_reverse_sequence, "batch_axis time_axis"),
    "ScatterElements": Rule(_scatter_elements, "axis reduction"),
    "ScatterND": Rule(_scatter_nd, "reduction"),
    "TopK": Rule(_top_k, "axis largest", {"sorted": None}),
    "Trilu": Rule(_triangle, "upper"),
}
