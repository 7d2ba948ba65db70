"""Pooling and reductions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from converter.torch_backend.ops.layers import pad_spatial, spatial_pads
from converter.torch_backend.ops.table import Attributes, Inputs, Rule, Table, Tensor, UnknownOperatorError, integers, optional

__all__ = ["TABLE"]


@dataclass(frozen=True)
class _Windows:
    """Where the windows of a pool lie.

    Attributes:
        kernel, strides, dilations: one number an axis.
        pads: as [begin..., end...].
        fitting: pads that make the windows fit; at the end they drop or add rows, as rounding of the count has it.
        counts: how many windows, by axis.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]
    fitting: list[int]
    counts: list[int]


def _windows(x: Tensor, a: Attributes) -> _Windows:
    kernel = list(a["kernel_shape"])
    dims = len(kernel)
    if dims not in (1, 2, 3):
        raise UnknownOperatorError(f"pooling with kernel_shape={kernel}")
    strides, dilations = list(a.get("strides", [1] * dims)), list(a.get("dilations", [1] * dims))
    pads = spatial_pads(x, a, kernel, strides, dilations)
    fitting, counts = list(pads), []
    for axis, (size, width, stride, dilation) in enumerate(zip(x.shape[2:], kernel, strides, dilations, strict=True)):
        span = dilation * (width - 1) + 1
        steps = (size + pads[axis] + pads[axis + dims] - span) / stride
        # rounded towards zero, as ONNX Runtime has it: a window larger than the padded input is one, and cut off
        count = (math.ceil(steps) if a.get("ceil_mode", 0) else math.trunc(steps)) + 1
        if a.get("ceil_mode", 0) and (count - 1) * stride >= size + pads[axis]:
            count -= 1  # a window must not start in the border
        fitting[axis + dims] = (count - 1) * stride + span - size - pads[axis]
        counts.append(count)
    return _Windows(kernel, strides, dilations, pads, fitting, counts)


def _pooled(pool: Callable[..., Any], x: Tensor, w: _Windows, **how: Any) -> Any:
    """Call a pool of two or three axes; a single axis gets a second one of length one."""
    if len(w.kernel) > 1:
        return pool(x, w.kernel, w.strides, **how)
    return pool(x.unsqueeze(-1), [*w.kernel, 1], [*w.strides, 1], **{k: (*v, 1) if k == "dilation" else v for k, v in how.items()})


def _sums(x: Tensor, w: _Windows) -> Tensor:
    pool = functional.avg_pool3d if len(w.kernel) == 3 else functional.avg_pool2d
    total: Tensor = _pooled(pool, x, w, divisor_override=1)
    return total.reshape(*x.shape[:2], *w.counts)


def _undilated(op_type: str, a: Attributes) -> None:
    if any(d != 1 for d in a.get("dilations", [])):
        raise UnknownOperatorError(f"operator '{op_type}' with dilations={a['dilations']}")


def _average_pool(x: Inputs, a: Attributes) -> Tensor:
    _undilated("AveragePool", a)
    w = _windows(x[0], a)
    if min(w.counts) < 1:
        return _nothing(x[0], w)
    counted = torch.ones_like(x[0][:1, :1])
    if a.get("count_include_pad", 0):
        counted = pad_spatial(counted, w.pads, 1.0)
        beyond = [f - p for f, p in zip(w.fitting, w.pads, strict=True)]
    else:
        beyond = w.fitting
    return _sums(pad_spatial(x[0], w.fitting), w) / _sums(pad_spatial(counted, beyond), w)


def _power_pool(x: Inputs, a: Attributes) -> Tensor:
    _undilated("LpPool", a)
    w, order = _windows(x[0], a), a.get("p", 2)
    sums = _sums(pad_spatial(x[0].abs() ** order, w.fitting), w)
    return torch.pow(sums, 1.0 / order)


def _max_pool(x: Inputs, a: Attributes) -> list[Tensor]:
    """The maxima, and where in the flat input they were."""
    w, data = _windows(x[0], a), x[0] if x[0].is_floating_point() else x[0].float()
    if min(w.counts) < 1:
        return [_nothing(x[0], w), _nothing(x[0], w).long()]
    padded = pad_spatial(data, w.fitting, torch.finfo(data.dtype).min)
    pool = functional.max_pool3d if len(w.kernel) == 3 else functional.max_pool2d
    values, where = _pooled(pool, padded, w, dilation=tuple(w.dilations), return_indices=True)
    shape = (*x[0].shape[:2], *w.counts)
    return [values.reshape(shape).to(x[0].dtype), _places(where.reshape(shape), padded.shape, x[0].shape, w.fitting)]


def _places(where: Tensor, padded: Sequence[int], shape: Sequence[int], pads: Sequence[int]) -> Tensor:
    """Places in padded maps, each counted by itself, as places in the flat tensor without the border."""
    place = torch.zeros_like(where)
    factor = 1
    for axis in reversed(range(2, len(shape))):
        place = place + (where % padded[axis] - pads[axis - 2]) * factor
        where, factor = torch.div(where, padded[axis], rounding_mode="floor"), factor * shape[axis]
    maps = torch.arange(math.prod(shape[:2])).reshape(*shape[:2], *[1] * (len(shape) - 2))
    return place + maps * factor


def _nothing(x: Tensor, w: _Windows) -> Tensor:
    return x.new_zeros((*x.shape[:2], *(max(0, count) for count in w.counts)))


def _max_unpool(x: Inputs, a: Attributes) -> Tensor:
    """Maxima back at their places, zeros between them."""
    kernel, wanted = a["kernel_shape"], optional(x, 2)
    dims = len(kernel)
    strides, pads = a.get("strides", [1] * dims), a.get("pads", [0] * 2 * dims)
    sizes = [(n - 1) * s + k - pads[i] - pads[i + dims] for i, (n, s, k) in enumerate(zip(x[0].shape[2:], strides, kernel, strict=True))]
    shape = [*x[0].shape[:2], *sizes]
    if wanted is not None and integers(wanted) != shape:
        raise UnknownOperatorError(f"operator 'MaxUnpool' with output_shape={integers(wanted)}")
    flat = torch.zeros(math.prod(shape), dtype=x[0].dtype).scatter(0, x[1].reshape(-1), x[0].reshape(-1))
    return flat.reshape(shape)


def _reduction(reduce: Callable[..., Tensor]) -> Rule:
    def function(x: Inputs, a: Attributes) -> Tensor:
        axes = optional(x, 1)
        if axes is None or axes.numel() == 0:
            if a.get("noop_with_empty_axes", 0):
                return x[0]
            axes = range(x[0].ndim)
        return reduce(x[0], dim=integers(axes), keepdim=bool(a.get("keepdims", 1)))

    return Rule(function, "keepdims noop_with_empty_axes")


def _product(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    for axis in sorted((d % x.ndim for d in dim), reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


def _maps(x: Tensor) -> tuple[int, ...]:
    """The axes behind batch and channels."""
    return tuple(range(2, x.ndim))


def _arg(find: Callable[..., Tensor]) -> Rule:
    def function(x: Inputs, a: Attributes) -> Tensor:
        axis, keepdim = a.get("axis", 0), bool(a.get("keepdims", 1))
        if a.get("select_last_index", 0):
            return x[0].shape[axis] - 1 - find(x[0].flip(axis), dim=axis, keepdim=keepdim)
        return find(x[0], dim=axis, keepdim=keepdim)

    return Rule(function, "axis keepdims select_last_index")


TABLE: Table = {
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "AveragePool": Rule(_average_pool, "auto_pad ceil_mode count_include_pad dilations kernel_shape pads strides"),
    "GlobalAveragePool": Rule(lambda x, _: x[0].mean(dim=_maps(x[0]), keepdim=True)),
    "GlobalLpPool": Rule(lambda x, a: torch.linalg.vector_norm(x[0], a.get("p", 2), dim=_maps(x[0]), keepdim=True), "p"),
    "GlobalMaxPool": Rule(lambda x, _: torch.amax(x[0], dim=_maps(x[0]), keepdim=True)),
    "LpPool": Rule(_power_pool, "auto_pad ceil_mode dilations kernel_shape p pads strides"),
    "MaxPool": Rule(_max_pool, "auto_pad ceil_mode dilations kernel_shape pads strides", {"storage_order": 0}),
    "MaxUnpool": Rule(_max_unpool, "kernel_shape pads strides"),
    "ReduceL1": _reduction(functools.partial(torch.linalg.vector_norm, ord=1)),
    "ReduceL2": _reduction(torch.linalg.vector_norm),
    "ReduceLogSum": _reduction(lambda x, **over: torch.log(torch.sum(x, **over))),
    "ReduceLogSumExp": _reduction(torch.logsumexp),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(torch.sum),
    "ReduceSumSquare": _reduction(lambda x, **over: torch.sum(x * x, **over)),
}
