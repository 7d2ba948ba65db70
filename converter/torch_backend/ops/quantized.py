"""QuantizeLinear and DequantizeLinear, per tensor or per axis."""

from __future__ import annotations

import torch

from converter.torch_backend.ops.table import Attributes, Inputs, Rule, Table, Tensor, optional

__all__ = ["TABLE"]


def _along(parameter: Tensor, x: Tensor, axis: int) -> Tensor:
    return parameter if parameter.ndim == 0 else parameter.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def _quantize(x: Inputs, a: Attributes) -> Tensor:
    zero_point = optional(x, 2)
    zero_point = torch.zeros((), dtype=torch.uint8) if zero_point is None else zero_point
    limits, axis = torch.iinfo(zero_point.dtype), a.get("axis", 1)
    codes = torch.round(x[0] / _along(x[1], x[0], axis)) + _along(zero_point, x[0], axis)
    return torch.clamp(codes, limits.min, limits.max).to(zero_point.dtype)


def _dequantize(x: Inputs, a: Attributes) -> Tensor:
    axis, zero_point = a.get("axis", 1), optional(x, 2)
    codes = x[0].to(torch.int32)
    centred = codes if zero_point is None else codes - _along(zero_point, codes, axis).to(torch.int32)
    return centred.to(torch.float32) * _along(x[1], codes, axis)


TABLE: Table = {"QuantizeLinear": Rule(_quantize, "axis"), "DequantizeLinear": Rule(_dequantize, "axis")}
