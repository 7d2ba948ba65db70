"""Pooling and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from converter.torch_ops.layers import pad_spatial, spatial_pads
from converter.torch_ops.table import Attributes, Inputs, Rule, Table, Tensor, UnknownOperatorError, integers, optional

__all__ = ["TABLE"]


def _windows(x: Tensor, a: Attributes) -> tuple[list[int], list[int], list[int], list[int]]:
    """(kernel, strides, pads, pads that make the windows fit): the last drop or add rows at the end, as ceil_mode has it."""
    kernel = list(a["kernel_shape"])
    if len(kernel) != 2:
        raise UnknownOperatorError(f"pooling with kernel_shape={kernel}")
    strides, dilations = list(a.get("strides", [1, 1])), list(a.get("dilations", [1, 1]))
    pads = spatial_pads(x, a, kernel, strides, dilations)
    fitting = list(pads)
    for axis, (size, width, stride, dilation) in enumerate(zip(x.shape[2:], kernel, strides, dilations, strict=True)):
        span = dilation * (width - 1) + 1
        steps = (size + pads[axis] + pads[axis + 2] - span) / stride
        count = (math.ceil(steps) if a.get("ceil_mode", 0) else math.floor(steps)) + 1
        if a.get("ceil_mode", 0) and (count - 1) * stride >= size + pads[axis]:
            count -= 1  # a window must not start in the border
        fitting[axis + 2] = (count - 1) * stride + span - size - pads[axis]
    return kernel, strides, pads, fitting


def _average_pool(x: Inputs, a: Attributes) -> Tensor:
    if any(d != 1 for d in a.get("dilations", [])):
        raise UnknownOperatorError(f"operator 'AveragePool' with dilations={a['dilations']}")
    kernel, strides, pads, fitting = _windows(x[0], a)
    counted = torch.ones_like(x[0][:1, :1])
    if a.get("count_include_pad", 0):
        counted = pad_spatial(counted, pads, 1.0)
        beyond = [f - p for f, p in zip(fitting, pads, strict=True)]
    else:
        beyond = fitting
    total = functional.avg_pool2d(pad_spatial(x[0], fitting), kernel, strides, divisor_override=1)
    return total / functional.avg_pool2d(pad_spatial(counted, beyond), kernel, strides, divisor_override=1)


def _max_pool(x: Inputs, a: Attributes) -> Tensor:
    kernel, strides, _, fitting = _windows(x[0], a)
    padded = pad_spatial(x[0], fitting, torch.finfo(x[0].dtype).min)
    return functional.max_pool2d(padded, kernel, strides, dilation=tuple(a.get("dilations", [1, 1])))


def _reduction(reduce: Callable[..., Tensor]) -> Rule:
    def function(x: Inputs, a: Attributes) -> Tensor:
        axes = optional(x, 1)
        if axes is None or axes.numel() == 0:
            if a.get("noop_with_empty_axes", 0):
                return x[0]  # type: ignore[no-any-return]
            axes = range(x[0].ndim)
        return reduce(x[0], dim=integers(axes), keepdim=bool(a.get("keepdims", 1)))

    return Rule(function, "keepdims noop_with_empty_axes")


def _norm(order: int) -> Callable[..., Tensor]:
    def reduce(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(x, order, dim=dim, keepdim=keepdim)
        return norm

    return reduce


def _product(x: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    for axis in sorted((d % x.ndim for d in dim), reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


def _arg(find: Callable[..., Tensor]) -> Rule:
    def function(x: Inputs, a: Attributes) -> Tensor:
        return find(x[0], dim=a.get("axis", 0), keepdim=bool(a.get("keepdims", 1)))

    return Rule(function, "axis keepdims", {"select_last_index": 0})


TABLE: Table = {
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "AveragePool": Rule(_average_pool, "auto_pad ceil_mode count_include_pad dilations kernel_shape pads strides"),
    "GlobalAveragePool": Rule(lambda x, _: x[0].mean(dim=tuple(range(2, x[0].ndim)), keepdim=True)),
    "GlobalMaxPool": Rule(lambda x, _: torch.amax(x[0], dim=tuple(range(2, x[0].ndim)), keepdim=True)),
    "MaxPool": Rule(_max_pool, "auto_pad ceil_mode dilations kernel_shape pads strides", {"storage_order": 0}),
    "ReduceL1": _reduction(_norm(1)),
    "ReduceL2": _reduction(_norm(2)),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(torch.sum),
}
