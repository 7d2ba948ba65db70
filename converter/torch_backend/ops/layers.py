"""Weighted operators, normalization and softmax."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from converter.torch_backend.ops.table import Attributes, Inputs, Rule, Table, Tensor, UnknownOperatorError, optional

__all__ = ["TABLE", "pad_spatial", "spatial_pads"]


def spatial_pads(x: Tensor, a: Attributes, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """Pads as [begin..., end...], with auto_pad resolved."""
    dims = len(kernel)
    mode = a.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return list(a.get("pads", [0] * 2 * dims))
    if mode == "VALID":
        return [0] * 2 * dims
    geometry = zip(x.shape[2:], kernel, strides, dilations, strict=True)
    total = [max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in geometry]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return small + large if mode == "SAME_UPPER" else large + small


def pad_spatial(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """Add (or, where negative, cut off) a border around the last axes; pads as [begin..., end...]."""
    dims = len(pads) // 2
    flat = [p for d in reversed(range(dims)) for p in (pads[d], pads[dims + d])]
    return functional.pad(x, flat, value=value) if any(flat) else x


def _conv(x: Inputs, a: Attributes) -> Tensor:
    data, weight, bias = x[0], x[1], optional(x, 2)
    kernel = list(weight.shape[2:])
    strides, dilations = a.get("strides", [1] * len(kernel)), a.get("dilations", [1] * len(kernel))
    data = pad_spatial(data, spatial_pads(data, a, kernel, strides, dilations))
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[len(kernel)]
    return convolve(data, weight, bias, stride=tuple(strides), dilation=tuple(dilations), groups=a.get("group", 1))


def _transposed_pads(x: Tensor, a: Attributes, kernel: Sequence[int]) -> list[int]:
    """What a transposed convolution cuts off, as [begin..., end...]; less than nothing adds zeros."""
    dims = len(kernel)
    mode, wanted = a.get("auto_pad", "NOTSET"), a.get("output_shape")
    strides = a.get("strides", [1] * dims)
    if wanted is None and mode not in ("SAME_UPPER", "SAME_LOWER"):
        return list(a.get("pads", [0] * 2 * dims)) if mode != "VALID" else [0] * 2 * dims
    extra, dilations = a.get("output_padding", [0] * dims), a.get("dilations", [1] * dims)
    sizes = [n * s for n, s in zip(x.shape[2:], strides, strict=True)] if wanted is None else list(wanted)[-dims:]
    geometry = zip(x.shape[2:], strides, extra, kernel, dilations, sizes, strict=True)
    total = [max(0, s * (n - 1) + e + (k - 1) * d + 1 - size) for n, s, e, k, d, size in geometry]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return small + large if mode == "SAME_UPPER" else large + small


def _conv_transpose(x: Inputs, a: Attributes) -> Tensor:
    data, weight, bias = x[0], x[1], optional(x, 2)
    dims = weight.ndim - 2
    pads, extra = _transposed_pads(data, a, list(weight.shape[2:])), a.get("output_padding", [0] * dims)
    convolve = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}[dims]
    full = convolve(
        data,
        weight,
        stride=tuple(a.get("strides", [1] * dims)),
        groups=a.get("group", 1),
        dilation=tuple(a.get("dilations", [1] * dims)),
    )
    ends = [more - end for more, end in zip(extra, pads[dims:], strict=True)]
    cut = pad_spatial(full, [-p for p in pads[:dims]] + ends)
    return cut if bias is None else cut + bias.reshape(-1, *[1] * dims)


def _gemm(x: Inputs, a: Attributes) -> Tensor:
    left = x[0].T if a.get("transA", 0) else x[0]
    right = x[1].T if a.get("transB", 0) else x[1]
    product: Tensor = left @ right
    if a.get("alpha", 1.0) != 1.0:
        product = product * a["alpha"]
    bias = optional(x, 2)
    return product if bias is None else product + bias * a.get("beta", 1.0)


def _layer_norm(x: Inputs, a: Attributes) -> Tensor:
    axis = a.get("axis", -1) % x[0].ndim
    shape = tuple(x[0].shape[axis:])
    weight, bias = x[1].expand(shape), optional(x, 2)
    return functional.layer_norm(x[0], shape, weight, None if bias is None else bias.expand(shape), a.get("epsilon", 1e-5))


def _instance_norm(x: Inputs, a: Attributes) -> Tensor:
    shape = (-1, *[1] * (x[0].ndim - 2))
    normalized = functional.layer_norm(x[0], tuple(x[0].shape[2:]), eps=a.get("epsilon", 1e-5))  # in one pass
    return normalized * x[1].reshape(shape) + x[2].reshape(shape)


def _batch_norm(x: Inputs, a: Attributes) -> Tensor:
    return functional.batch_norm(x[0], x[3], x[4], x[1], x[2], training=False, eps=a.get("epsilon", 1e-5))


def _lp_norm(x: Inputs, a: Attributes) -> Tensor:
    if a.get("p", 2) not in (1, 2):
        raise UnknownOperatorError(f"operator 'LpNormalization' with p={a['p']}")
    return torch.div(x[0], torch.linalg.vector_norm(x[0], a.get("p", 2), dim=a.get("axis", -1), keepdim=True))


def _local_response(x: Inputs, a: Attributes) -> Tensor:
    """Divide by a power of the squares of neighbouring channels."""
    size, data = a["size"], x[0]
    squares = functional.pad((data * data).unsqueeze(1), [0, 0] * (data.ndim - 2) + [(size - 1) // 2, size // 2])
    total = functools.reduce(torch.add, (squares.narrow(2, i, data.shape[1]) for i in range(size)))
    return data / torch.pow(a.get("bias", 1.0) + a.get("alpha", 1e-4) / size * total.squeeze(1), a.get("beta", 0.75))


def _standardize(x: Inputs, a: Attributes) -> Tensor:
    axes = a.get("axes", [0, 2, 3])
    mean = x[0].mean(axes, keepdim=True)
    variance = (x[0] * x[0]).mean(axes, keepdim=True) - mean * mean
    return (x[0] - mean) / (torch.sqrt(variance) + 1e-9)


def _hardmax(x: Inputs, a: Attributes) -> Tensor:
    axis = a.get("axis", -1) % x[0].ndim
    place = torch.arange(x[0].shape[axis]).reshape([-1 if i == axis else 1 for i in range(x[0].ndim)])
    return (place == x[0].argmax(axis, keepdim=True)).to(x[0].dtype)


TABLE: Table = {
    "BatchNormalization": Rule(_batch_norm, "epsilon", {"momentum": None, "training_mode": 0}),
    "Conv": Rule(_conv, "auto_pad dilations group pads strides", {"kernel_shape": None}),
    "ConvTranspose": Rule(_conv_transpose, "auto_pad dilations group output_padding output_shape pads strides", {"kernel_shape": None}),
    "Einsum": Rule(lambda x, a: torch.einsum(a["equation"], *x), "equation"),
    "Gemm": Rule(_gemm, "alpha beta transA transB"),
    "Hardmax": Rule(_hardmax, "axis"),
    "InstanceNormalization": Rule(_instance_norm, "epsilon"),
    "LRN": Rule(_local_response, "alpha beta bias size"),
    "LayerNormalization": Rule(_layer_norm, "axis epsilon", {"stash_type": 1}),
    "LogSoftmax": Rule(lambda x, a: functional.log_softmax(x[0], dim=a.get("axis", -1)), "axis"),
    "LpNormalization": Rule(_lp_norm, "axis p"),
    "MatMul": Rule(lambda x, _: torch.matmul(x[0], x[1])),
    "MeanVarianceNormalization": Rule(_standardize, "axes"),
    "Softmax": Rule(lambda x, a: functional.softmax(x[0], dim=a.get("axis", -1)), "axis"),
}
