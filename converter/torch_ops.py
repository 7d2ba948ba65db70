"""ONNX operators (opset 20, inference) as torch functions: one table, one short rule an operator.

Each rule takes the operator's inputs (torch tensors, None where optional and absent) and its attributes, and returns
the output, or a list of outputs. Shapes and types follow the ONNX operator specification. Everything is
differentiable where torch is. An operator or an attribute value that is not here raises :class:`UnknownOperatorError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

__all__ = ["POINTWISE", "UnknownOperatorError", "apply", "known"]

Tensor = torch.Tensor
Inputs = Sequence[Any]
Attributes = Mapping[str, Any]
Rule = Callable[[Inputs, Attributes], Tensor | list[Tensor]]

_RULES: dict[str, Rule] = {}

_ONNX_TO_TORCH = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}


class UnknownOperatorError(LookupError):
    """The table has no rule for this operator or for one of its attribute values."""


def known(op_type: str) -> bool:
    """True if the table has a rule for the operator."""
    return op_type in _RULES


def apply(op_type: str, inputs: Inputs, attributes: Attributes) -> list[Tensor]:
    """Run one operator.

    Raises:
        UnknownOperatorError: no rule, or an attribute value that the rule does not cover.
    """
    if op_type not in _RULES:
        raise UnknownOperatorError(f"operator '{op_type}'")
    result = _RULES[op_type](inputs, attributes)
    return result if isinstance(result, list) else [result]


def _rule(*op_types: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for op_type in op_types:
            _RULES[op_type] = rule
        return rule

    return register


def _ints(value: Any) -> list[int]:
    return [int(v) for v in (value.tolist() if isinstance(value, Tensor) else value)]


def _optional(inputs: Inputs, index: int) -> Any:
    return inputs[index] if len(inputs) > index else None


# Pointwise operators: the value at a place depends on the inputs' values at that place alone.


def _clip(x: Inputs, _: Attributes) -> Tensor:
    low, high = _optional(x, 1), _optional(x, 2)
    result: Tensor = x[0]
    if low is not None:
        result = torch.maximum(result, low.to(result))
    return result if high is None else torch.minimum(result, high.to(result))


def _divide(x: Inputs, _: Attributes) -> Tensor:
    if x[0].is_floating_point():
        return torch.div(x[0], x[1])
    return torch.div(x[0], x[1], rounding_mode="trunc")


def _fold(combine: Callable[[Tensor, Tensor], Tensor]) -> Rule:
    def rule(x: Inputs, _: Attributes) -> Tensor:
        result: Tensor = x[0]
        for other in x[1:]:
            result = combine(result, other)
        return result

    return rule


POINTWISE: Mapping[str, Rule] = {
    "Abs": lambda x, _: torch.abs(x[0]),
    "Add": lambda x, _: x[0] + x[1],
    "Clip": _clip,
    "Div": _divide,
    "Erf": lambda x, _: torch.erf(x[0]),
    "Exp": lambda x, _: torch.exp(x[0]),
    "Gelu": lambda x, a: functional.gelu(x[0], approximate=a.get("approximate", "none")),
    "HardSigmoid": lambda x, a: torch.clamp(x[0] * a.get("alpha", 0.2) + a.get("beta", 0.5), 0.0, 1.0),
    "HardSwish": lambda x, _: x[0] * torch.clamp(x[0] / 6.0 + 0.5, 0.0, 1.0),
    "Identity": lambda x, _: x[0],
    "LeakyRelu": lambda x, a: functional.leaky_relu(x[0], a.get("alpha", 0.01)),
    "Log": lambda x, _: torch.log(x[0]),
    "Max": _fold(torch.maximum),
    "Min": _fold(torch.minimum),
    "Mul": lambda x, _: x[0] * x[1],
    "Neg": lambda x, _: -x[0],
    "Pow": lambda x, _: torch.pow(x[0], x[1]),
    "Reciprocal": lambda x, _: torch.reciprocal(x[0]),
    "Relu": lambda x, _: torch.relu(x[0]),
    "Sigmoid": lambda x, _: torch.sigmoid(x[0]),
    "Softplus": lambda x, _: functional.softplus(x[0]),
    "Sqrt": lambda x, _: torch.sqrt(x[0]),
    "Sub": lambda x, _: x[0] - x[1],
    "Tanh": lambda x, _: torch.tanh(x[0]),
}
"""Pointwise operators on floating point tensors."""

_RULES.update(POINTWISE)
_RULES.update(
    {
        "And": lambda x, _: x[0] & x[1],
        "Ceil": lambda x, _: torch.ceil(x[0]),
        "Cos": lambda x, _: torch.cos(x[0]),
        "Equal": lambda x, _: x[0] == x[1],
        "Floor": lambda x, _: torch.floor(x[0]),
        "Greater": lambda x, _: x[0] > x[1],
        "GreaterOrEqual": lambda x, _: x[0] >= x[1],
        "Less": lambda x, _: x[0] < x[1],
        "LessOrEqual": lambda x, _: x[0] <= x[1],
        "Not": lambda x, _: ~x[0],
        "Or": lambda x, _: x[0] | x[1],
        "Round": lambda x, _: torch.round(x[0]),
        "Sign": lambda x, _: torch.sign(x[0]),
        "Sin": lambda x, _: torch.sin(x[0]),
        "Where": lambda x, _: torch.where(x[0], x[1], x[2]),
    }
)


@_rule("Cast")
def _cast(x: Inputs, a: Attributes) -> Tensor:
    if a["to"] not in _ONNX_TO_TORCH:
        raise UnknownOperatorError(f"Cast to type {a['to']}")
    result: Tensor = x[0].to(_ONNX_TO_TORCH[a["to"]])
    return result


# Weighted operators.


def _spatial_pads(x: Tensor, a: Attributes, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """Pads as [begin..., end...], with auto_pad resolved."""
    dims = len(kernel)
    mode = a.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return list(a.get("pads", [0] * 2 * dims))
    if mode == "VALID":
        return [0] * 2 * dims
    total = [
        max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
        for n, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return small + large if mode == "SAME_UPPER" else large + small


def _pad_spatial(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    dims = len(pads) // 2
    flat = [p for d in reversed(range(dims)) for p in (pads[d], pads[dims + d])]
    return functional.pad(x, flat, value=value) if any(flat) else x


@_rule("Conv")
def _conv(x: Inputs, a: Attributes) -> Tensor:
    data, weight, bias = x[0], x[1], _optional(x, 2)
    kernel = list(weight.shape[2:])
    strides, dilations = a.get("strides", [1] * len(kernel)), a.get("dilations", [1] * len(kernel))
    data = _pad_spatial(data, _spatial_pads(data, a, kernel, strides, dilations))
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[len(kernel)]
    return convolve(data, weight, bias, stride=tuple(strides), dilation=tuple(dilations), groups=a.get("group", 1))


@_rule("ConvTranspose")
def _conv_transpose(x: Inputs, a: Attributes) -> Tensor:
    data, weight, bias = x[0], x[1], _optional(x, 2)
    dims = weight.ndim - 2
    pads = list(a.get("pads", [0] * 2 * dims))
    if dims != 2 or a.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in a or pads[:2] != pads[2:]:
        raise UnknownOperatorError("ConvTranspose with these attributes")
    return functional.conv_transpose2d(
        data,
        weight,
        bias,
        stride=tuple(a.get("strides", [1, 1])),
        padding=tuple(pads[:2]),
        output_padding=tuple(a.get("output_padding", [0, 0])),
        groups=a.get("group", 1),
        dilation=tuple(a.get("dilations", [1, 1])),
    )


@_rule("Gemm")
def _gemm(x: Inputs, a: Attributes) -> Tensor:
    left = x[0].T if a.get("transA", 0) else x[0]
    right = x[1].T if a.get("transB", 0) else x[1]
    product: Tensor = left @ right
    if a.get("alpha", 1.0) != 1.0:
        product = product * a["alpha"]
    bias = _optional(x, 2)
    return product if bias is None else product + bias * a.get("beta", 1.0)


_RULES["MatMul"] = lambda x, _: torch.matmul(x[0], x[1])


@_rule("Einsum")
def _einsum(x: Inputs, a: Attributes) -> Tensor:
    result: Tensor = torch.einsum(a["equation"], *x)
    return result


# Normalization and softmax.


@_rule("Softmax")
def _softmax(x: Inputs, a: Attributes) -> Tensor:
    return functional.softmax(x[0], dim=a.get("axis", -1))


@_rule("LogSoftmax")
def _log_softmax(x: Inputs, a: Attributes) -> Tensor:
    return functional.log_softmax(x[0], dim=a.get("axis", -1))


@_rule("LayerNormalization")
def _layer_norm(x: Inputs, a: Attributes) -> Tensor:
    axis = a.get("axis", -1) % x[0].ndim
    shape = tuple(x[0].shape[axis:])
    weight, bias = x[1].expand(shape), _optional(x, 2)
    return functional.layer_norm(x[0], shape, weight, None if bias is None else bias.expand(shape), a.get("epsilon", 1e-5))


@_rule("InstanceNormalization")
def _instance_norm(x: Inputs, a: Attributes) -> Tensor:
    return functional.instance_norm(x[0], weight=x[1], bias=x[2], eps=a.get("epsilon", 1e-5))


@_rule("BatchNormalization")
def _batch_norm(x: Inputs, a: Attributes) -> Tensor:
    return functional.batch_norm(x[0], x[3], x[4], x[1], x[2], training=False, eps=a.get("epsilon", 1e-5))


# Pooling, reduction, resizing.


def _pool_geometry(x: Tensor, a: Attributes) -> tuple[list[int], list[int], list[int]]:
    kernel = list(a["kernel_shape"])
    strides = list(a.get("strides", [1] * len(kernel)))
    if any(d != 1 for d in a.get("dilations", [])) or len(kernel) != 2:
        raise UnknownOperatorError("pooling with dilation, or not in two dimensions")
    return kernel, strides, _spatial_pads(x, a, kernel, strides, [1] * len(kernel))


@_rule("AveragePool")
def _average_pool(x: Inputs, a: Attributes) -> Tensor:
    kernel, strides, pads = _pool_geometry(x[0], a)
    ceil_mode = bool(a.get("ceil_mode", 0))
    if a.get("count_include_pad", 0):
        if ceil_mode:
            raise UnknownOperatorError("AveragePool with ceil_mode and count_include_pad")
        return functional.avg_pool2d(_pad_spatial(x[0], pads), kernel, strides)
    ones = _pad_spatial(torch.ones_like(x[0][:1, :1]), pads)
    total = functional.avg_pool2d(_pad_spatial(x[0], pads), kernel, strides, ceil_mode=ceil_mode, divisor_override=1)
    return total / functional.avg_pool2d(ones, kernel, strides, ceil_mode=ceil_mode, divisor_override=1)


@_rule("MaxPool")
def _max_pool(x: Inputs, a: Attributes) -> Tensor:
    kernel, strides, pads = _pool_geometry(x[0], a)
    lowest = torch.finfo(x[0].dtype).min
    return functional.max_pool2d(_pad_spatial(x[0], pads, lowest), kernel, strides, ceil_mode=bool(a.get("ceil_mode", 0)))


_RULES["GlobalAveragePool"] = lambda x, _: x[0].mean(dim=tuple(range(2, x[0].ndim)), keepdim=True)
_RULES["GlobalMaxPool"] = lambda x, _: torch.amax(x[0], dim=tuple(range(2, x[0].ndim)), keepdim=True)


def _reduction(reduce: Callable[..., Tensor]) -> Rule:
    def rule(x: Inputs, a: Attributes) -> Tensor:
        axes = _optional(x, 1)
        if (axes is None or axes.numel() == 0) and a.get("noop_with_empty_axes", 0):
            return x[0]  # type: ignore[no-any-return]
        dims = list(range(x[0].ndim)) if axes is None or axes.numel() == 0 else _ints(axes)
        return reduce(x[0], dim=dims, keepdim=bool(a.get("keepdims", 1)))

    return rule


_RULES["ReduceMean"] = _reduction(torch.mean)
_RULES["ReduceSum"] = _reduction(torch.sum)
_RULES["ReduceMax"] = _reduction(torch.amax)
_RULES["ReduceMin"] = _reduction(torch.amin)
_RULES["ReduceL2"] = _reduction(lambda x, dim, keepdim: torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim))


@_rule("ReduceProd")
def _reduce_prod(x: Inputs, a: Attributes) -> Tensor:
    result: Tensor = x[0]
    for dim in sorted(_ints(x[1]) if _optional(x, 1) is not None else range(x[0].ndim), reverse=True):
        result = result.prod(dim, keepdim=bool(a.get("keepdims", 1)))
    return result


@_rule("ArgMax")
def _argmax(x: Inputs, a: Attributes) -> Tensor:
    return torch.argmax(x[0], dim=a.get("axis", 0), keepdim=bool(a.get("keepdims", 1)))


@_rule("Resize")
def _resize(x: Inputs, a: Attributes) -> Tensor:
    data, scales, sizes = x[0], _optional(x, 2), _optional(x, 3)
    if sizes is not None and sizes.numel():
        target = _ints(sizes)
    else:
        target = [math.floor(n * s) for n, s in zip(data.shape, scales.tolist(), strict=True)]
    mode, where = a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel")
    if data.ndim != 4 or target[:2] != list(data.shape[:2]) or a.get("antialias", 0):
        raise UnknownOperatorError("Resize of other than the last two of four dimensions")
    if mode == "nearest":
        whole = all(t % n == 0 for t, n in zip(target[2:], data.shape[2:], strict=True))
        if whole or (where == "asymmetric" and a.get("nearest_mode", "round_prefer_floor") == "floor"):
            return functional.interpolate(data, size=target[2:], mode="nearest")
    if mode == "linear" and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return functional.interpolate(data, size=target[2:], mode="bilinear", align_corners=where == "align_corners")
    if mode == "cubic" and where in ("half_pixel", "pytorch_half_pixel") and a.get("cubic_coeff_a", -0.75) == -0.75:
        return functional.interpolate(data, size=target[2:], mode="bicubic", align_corners=False)
    raise UnknownOperatorError(f"Resize with mode {mode}, {where}")


# Shapes and data movement.


@_rule("Pad")
def _pad(x: Inputs, a: Attributes) -> Tensor:
    pads, value, axes = _ints(x[1]), _optional(x, 2), _optional(x, 3)
    dims = _ints(axes) if axes is not None else list(range(x[0].ndim))
    flat = [0] * 2 * x[0].ndim
    for i, dim in enumerate(dims):
        position = 2 * (x[0].ndim - 1 - dim % x[0].ndim)
        flat[position], flat[position + 1] = pads[i], pads[len(dims) + i]
    mode = a.get("mode", "constant")
    if mode == "constant":
        return functional.pad(x[0], flat, value=0.0 if value is None else float(value))
    if mode == "reflect" and x[0].ndim == 4 and not any(flat[4:]):
        return functional.pad(x[0], flat[:4], mode="reflect")
    raise UnknownOperatorError(f"Pad with mode {mode}")


@_rule("Reshape")
def _reshape(x: Inputs, a: Attributes) -> Tensor:
    wanted = _ints(x[1])
    if not a.get("allowzero", 0):
        wanted = [x[0].shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    result: Tensor = x[0].reshape(wanted)
    return result


@_rule("Transpose")
def _transpose(x: Inputs, a: Attributes) -> Tensor:
    result: Tensor = x[0].permute(*a.get("perm", list(reversed(range(x[0].ndim)))))
    return result


@_rule("Squeeze")
def _squeeze(x: Inputs, _: Attributes) -> Tensor:
    axes = _optional(x, 1)
    dims = [i for i, n in enumerate(x[0].shape) if n == 1] if axes is None else _ints(axes)
    return torch.squeeze(x[0], dim=tuple(dims))


@_rule("Unsqueeze")
def _unsqueeze(x: Inputs, _: Attributes) -> Tensor:
    axes = _ints(x[1])
    rank = x[0].ndim + len(axes)
    result: Tensor = x[0]
    for axis in sorted(i % rank for i in axes):
        result = result.unsqueeze(axis)
    return result


@_rule("Flatten")
def _flatten(x: Inputs, a: Attributes) -> Tensor:
    axis = a.get("axis", 1)
    axis = axis + x[0].ndim if axis < 0 else axis
    result: Tensor = x[0].reshape(math.prod(x[0].shape[:axis]), -1)
    return result


@_rule("Concat")
def _concat(x: Inputs, a: Attributes) -> Tensor:
    return torch.cat(list(x), dim=a["axis"])


@_rule("Split")
def _split(x: Inputs, a: Attributes) -> list[Tensor]:
    axis, sizes = a.get("axis", 0), _optional(x, 1)
    if sizes is not None:
        return list(torch.split(x[0], _ints(sizes), dim=axis))
    return list(torch.split(x[0], math.ceil(x[0].shape[axis] / a["num_outputs"]), dim=axis))


@_rule("Slice")
def _slice(x: Inputs, _: Attributes) -> Tensor:
    starts, ends = _ints(x[1]), _ints(x[2])
    axes = _ints(x[3]) if _optional(x, 3) is not None else list(range(len(starts)))
    steps = _ints(x[4]) if _optional(x, 4) is not None else [1] * len(starts)
    result: Tensor = x[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        chosen = range(result.shape[axis])[slice(start, end if end > -(2**31) else None, step)]
        result = result.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64))
    return result


@_rule("Gather")
def _gather(x: Inputs, a: Attributes) -> Tensor:
    axis = a.get("axis", 0)
    index = torch.where(x[1] < 0, x[1] + x[0].shape[axis], x[1])
    picked = x[0].index_select(axis, index.reshape(-1))
    axis = axis % x[0].ndim
    result: Tensor = picked.reshape(*x[0].shape[:axis], *index.shape, *x[0].shape[axis + 1 :])
    return result


@_rule("Expand")
def _expand(x: Inputs, _: Attributes) -> Tensor:
    return x[0].expand(torch.broadcast_shapes(x[0].shape, tuple(_ints(x[1]))))  # type: ignore[no-any-return]


@_rule("Tile")
def _tile(x: Inputs, _: Attributes) -> Tensor:
    return torch.tile(x[0], _ints(x[1]))


@_rule("DepthToSpace")
def _depth_to_space(x: Inputs, a: Attributes) -> Tensor:
    block = a["blocksize"]
    n, c, h, w = x[0].shape
    if a.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x[0], block)
    result: Tensor = x[0].reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, -1, h * block, w * block)
    return result


@_rule("Shape")
def _shape(x: Inputs, a: Attributes) -> Tensor:
    return torch.tensor(list(x[0].shape)[a.get("start", 0) : a.get("end", None)], dtype=torch.int64)


_RULES["Size"] = lambda x, _: torch.tensor(x[0].numel(), dtype=torch.int64)


@_rule("ConstantOfShape")
def _constant_of_shape(x: Inputs, a: Attributes) -> Tensor:
    value = torch.from_numpy(np.array(a["value"])) if "value" in a else torch.zeros(1)
    return value.reshape(()).expand(_ints(x[0])).clone()


@_rule("Range")
def _range(x: Inputs, _: Attributes) -> Tensor:
    return torch.arange(x[0].item(), x[1].item(), x[2].item(), dtype=x[0].dtype)
