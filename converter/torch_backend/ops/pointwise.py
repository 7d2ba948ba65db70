"""Pointwise operators: the value at a place depends on the inputs' values at that place alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from converter.torch_backend.ops.table import Attributes, Inputs, Rule, Table, Tensor, UnknownOperatorError, optional

__all__ = ["ACTIVATION", "FLOAT", "OTHER"]

ACTIVATION = frozenset(
    ["Add", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Mul", "Relu", "Sigmoid", "Tanh"]
)
"""Of the pointwise operators, those that activation functions are spelled with."""

_SELU = (1.67326319217681884765625, 1.05070102214813232421875)


def _clip(x: Inputs, _: Attributes) -> Tensor:
    low, high = optional(x, 1), optional(x, 2)
    result: Tensor = x[0]
    if low is not None:
        result = torch.maximum(result, low.to(result))
    return result if high is None else torch.minimum(result, high.to(result))


def _divide(x: Inputs, _: Attributes) -> Tensor:
    if x[0].is_floating_point():
        return torch.div(x[0], x[1])
    return torch.div(x[0], x[1], rounding_mode="trunc")


def _fold(combine: Callable[[Tensor, Tensor], Tensor]) -> Rule:
    def function(x: Inputs, _: Attributes) -> Tensor:
        result: Tensor = x[0]
        for other in x[1:]:
            result = combine(result, other)
        return result

    return Rule(function)


def _selu(x: Inputs, a: Attributes) -> Tensor:
    alpha, gamma = a.get("alpha", _SELU[0]), a.get("gamma", _SELU[1])
    result: Tensor = gamma * functional.elu(x[0], alpha)
    return result


FLOAT: Table = {
    "Abs": Rule(lambda x, _: torch.abs(x[0])),
    "Add": Rule(lambda x, _: x[0] + x[1]),
    "Clip": Rule(_clip),
    "Div": Rule(_divide),
    "Elu": Rule(lambda x, a: functional.elu(x[0], a.get("alpha", 1.0)), "alpha"),
    "Erf": Rule(lambda x, _: torch.erf(x[0])),
    "Exp": Rule(lambda x, _: torch.exp(x[0])),
    "Gelu": Rule(lambda x, a: functional.gelu(x[0], approximate=a.get("approximate", "none")), "approximate"),
    "HardSigmoid": Rule(lambda x, a: torch.clamp(x[0] * a.get("alpha", 0.2) + a.get("beta", 0.5), 0.0, 1.0), "alpha beta"),
    "HardSwish": Rule(lambda x, _: x[0] * torch.clamp(x[0] / 6.0 + 0.5, 0.0, 1.0)),
    "Identity": Rule(lambda x, _: x[0]),
    "LeakyRelu": Rule(lambda x, a: functional.leaky_relu(x[0], a.get("alpha", 0.01)), "alpha"),
    "Log": Rule(lambda x, _: torch.log(x[0])),
    "Max": _fold(torch.maximum),
    "Min": _fold(torch.minimum),
    "Mish": Rule(lambda x, _: functional.mish(x[0])),
    "Mul": Rule(lambda x, _: x[0] * x[1]),
    "Neg": Rule(lambda x, _: -x[0]),
    "PRelu": Rule(lambda x, _: torch.where(x[0] < 0, x[0] * x[1], x[0])),
    "Pow": Rule(lambda x, _: torch.pow(x[0], x[1]).to(x[0].dtype)),
    "Reciprocal": Rule(lambda x, _: torch.reciprocal(x[0])),
    "Relu": Rule(lambda x, _: torch.relu(x[0])),
    "Selu": Rule(_selu, "alpha gamma"),
    "Sigmoid": Rule(lambda x, _: torch.sigmoid(x[0])),
    "Softplus": Rule(lambda x, _: torch.logaddexp(x[0], torch.zeros_like(x[0]))),
    "Softsign": Rule(lambda x, _: functional.softsign(x[0])),
    "Sqrt": Rule(lambda x, _: torch.sqrt(x[0])),
    "Sub": Rule(lambda x, _: x[0] - x[1]),
    "Sum": _fold(torch.add),
    "Tanh": Rule(lambda x, _: torch.tanh(x[0])),
}
"""On floating point tensors."""

_HALF = 10
_ONNX_TO_TORCH = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    _HALF: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}


def _cast(x: Inputs, a: Attributes) -> Tensor:
    if a["to"] == _HALF and x[0].dtype == torch.float32:
        # the values of float16 in float32, which gradients pass without underflow
        half = x[0].half().float()
        return torch.where(torch.isfinite(half), x[0] + (half - x[0]).detach(), half)
    if a["to"] not in _ONNX_TO_TORCH:
        raise UnknownOperatorError(f"operator 'Cast' with to={a['to']}")
    result: Tensor = x[0].to(_ONNX_TO_TORCH[a["to"]])
    return result


def _is_infinite(x: Inputs, a: Attributes) -> Tensor:
    result = torch.isinf(x[0])
    if not a.get("detect_positive", 1):
        result = result & (x[0] < 0)
    return result if a.get("detect_negative", 1) else result & (x[0] > 0)


def _mean(x: Inputs, _: Attributes) -> Tensor:
    total: Tensor = x[0]
    for other in x[1:]:
        total = total + other
    return total / len(x)


def _modulo(x: Inputs, a: Attributes) -> Tensor:
    return torch.fmod(x[0], x[1]) if a.get("fmod", 0) else torch.remainder(x[0], x[1])


def _shrink(x: Inputs, a: Attributes) -> Tensor:
    bias, limit = a.get("bias", 0.0), a.get("lambd", 0.5)
    return torch.where(x[0] < -limit, x[0] + bias, torch.where(x[0] > limit, x[0] - bias, torch.zeros_like(x[0])))


def _thresholded(x: Inputs, a: Attributes) -> Tensor:
    return torch.where(x[0] > a.get("alpha", 1.0), x[0], torch.zeros_like(x[0]))


OTHER: Table = {
    "Acos": Rule(lambda x, _: torch.acos(x[0])),
    "Acosh": Rule(lambda x, _: torch.acosh(x[0])),
    "And": Rule(lambda x, _: x[0] & x[1]),
    "Asin": Rule(lambda x, _: torch.asin(x[0])),
    "Asinh": Rule(lambda x, _: torch.asinh(x[0])),
    "Atan": Rule(lambda x, _: torch.atan(x[0])),
    "Atanh": Rule(lambda x, _: torch.atanh(x[0])),
    "Cast": Rule(_cast, "to", {"saturate": None}),
    "CastLike": Rule(lambda x, _: x[0].to(x[1].dtype), "", {"saturate": None}),
    "Ceil": Rule(lambda x, _: torch.ceil(x[0])),
    "Celu": Rule(lambda x, a: functional.celu(x[0], a.get("alpha", 1.0)), "alpha"),
    "Cos": Rule(lambda x, _: torch.cos(x[0])),
    "Cosh": Rule(lambda x, _: torch.cosh(x[0])),
    "Dropout": Rule(lambda x, _: x[0], "", {"seed": None}),
    "Equal": Rule(lambda x, _: x[0] == x[1]),
    "Floor": Rule(lambda x, _: torch.floor(x[0])),
    "Greater": Rule(lambda x, _: x[0] > x[1]),
    "GreaterOrEqual": Rule(lambda x, _: x[0] >= x[1]),
    "IsInf": Rule(_is_infinite, "detect_negative detect_positive"),
    "IsNaN": Rule(lambda x, _: torch.isnan(x[0])),
    "Less": Rule(lambda x, _: x[0] < x[1]),
    "LessOrEqual": Rule(lambda x, _: x[0] <= x[1]),
    "Mean": Rule(_mean),
    "Mod": Rule(_modulo, "fmod"),
    "Not": Rule(lambda x, _: ~x[0]),
    "Or": Rule(lambda x, _: x[0] | x[1]),
    "Round": Rule(lambda x, _: torch.round(x[0])),
    "Shrink": Rule(_shrink, "bias lambd"),
    "Sign": Rule(lambda x, _: torch.sign(x[0])),
    "Sin": Rule(lambda x, _: torch.sin(x[0])),
    "Sinh": Rule(lambda x, _: torch.sinh(x[0])),
    "Tan": Rule(lambda x, _: torch.tan(x[0])),
    "ThresholdedRelu": Rule(_thresholded, "alpha"),
    "Where": Rule(lambda x, _: torch.where(x[0], x[1], x[2])),
    "Xor": Rule(lambda x, _: x[0] ^ x[1]),
}
"""On other types, or of no use as part of an activation function."""
