"""Pointwise operators: the value at a place depends on the inputs' values at that place alone."""

from __future__ import annotations

import functools
import operator
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
"""Alpha and gamma by default."""


def _clip(x: Inputs, _: Attributes) -> Tensor:
    low, high = optional(x, 1), optional(x, 2)
    result = x[0]
    if low is not None:
        result = torch.maximum(result, low.to(result))
    return result if high is None else torch.minimum(result, high.to(result))


def _fold(combine: Callable[[Tensor, Tensor], Tensor]) -> Rule:
    return Rule(lambda x, _: functools.reduce(combine, x))


def _plain(function: Callable[..., Tensor]) -> Rule:
    """Without attributes, and of the same inputs in the same order."""
    return Rule(lambda x, _: function(*x))


FLOAT: Table = {
    "Abs": _plain(torch.abs),
    "Add": _plain(operator.add),
    "Clip": Rule(_clip),
    "Div": Rule(lambda x, _: torch.div(x[0], x[1], rounding_mode=None if x[0].is_floating_point() else "trunc")),
    "Elu": Rule(lambda x, a: functional.elu(x[0], a.get("alpha", 1.0)), "alpha"),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Gelu": Rule(lambda x, a: functional.gelu(x[0], approximate=a.get("approximate", "none")), "approximate"),
    "HardSigmoid": Rule(lambda x, a: torch.clamp(x[0] * a.get("alpha", 0.2) + a.get("beta", 0.5), 0.0, 1.0), "alpha beta"),
    "HardSwish": Rule(lambda x, _: x[0] * torch.clamp(x[0] / 6.0 + 0.5, 0.0, 1.0)),
    "Identity": Rule(lambda x, _: x[0]),
    "LeakyRelu": Rule(lambda x, a: functional.leaky_relu(x[0], a.get("alpha", 0.01)), "alpha"),
    "Log": _plain(torch.log),
    "Max": _fold(torch.maximum),
    "Min": _fold(torch.minimum),
    "Mish": _plain(functional.mish),
    "Mul": _plain(operator.mul),
    "Neg": _plain(operator.neg),
    "PRelu": Rule(lambda x, _: torch.where(x[0] < 0, x[0] * x[1], x[0])),
    "Pow": Rule(lambda x, _: torch.pow(x[0], x[1]).to(x[0].dtype)),
    "Reciprocal": _plain(torch.reciprocal),
    "Relu": _plain(torch.relu),
    "Selu": Rule(lambda x, a: functional.elu(x[0], a.get("alpha", _SELU[0])) * a.get("gamma", _SELU[1]), "alpha gamma"),
    "Sigmoid": _plain(torch.sigmoid),
    "Softplus": Rule(lambda x, _: torch.logaddexp(x[0], torch.zeros_like(x[0]))),
    "Softsign": _plain(functional.softsign),
    "Sqrt": _plain(torch.sqrt),
    "Sub": _plain(operator.sub),
    "Sum": _fold(torch.add),
    "Tanh": _plain(torch.tanh),
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
    return x[0].to(_ONNX_TO_TORCH[a["to"]])


def _is_infinite(x: Inputs, a: Attributes) -> Tensor:
    result = torch.isinf(x[0])
    if not a.get("detect_positive", 1):
        result = result & (x[0] < 0)
    return result if a.get("detect_negative", 1) else result & (x[0] > 0)


def _shrink(x: Inputs, a: Attributes) -> Tensor:
    bias, limit = a.get("bias", 0.0), a.get("lambd", 0.5)
    return torch.where(x[0] < -limit, x[0] + bias, torch.where(x[0] > limit, x[0] - bias, torch.zeros_like(x[0])))


OTHER: Table = {
    "Acos": _plain(torch.acos),
    "Acosh": _plain(torch.acosh),
    "And": _plain(operator.and_),
    "Asin": _plain(torch.asin),
    "Asinh": _plain(torch.asinh),
    "Atan": _plain(torch.atan),
    "Atanh": _plain(torch.atanh),
    "Cast": Rule(_cast, "to", {"saturate": None}),
    "CastLike": Rule(lambda x, _: x[0].to(x[1].dtype), "", {"saturate": None}),
    "Ceil": _plain(torch.ceil),
    "Celu": Rule(lambda x, a: functional.celu(x[0], a.get("alpha", 1.0)), "alpha"),
    "Cos": _plain(torch.cos),
    "Cosh": _plain(torch.cosh),
    "Dropout": Rule(lambda x, _: x[0], "", {"seed": None}),
    "Equal": _plain(operator.eq),
    "Floor": _plain(torch.floor),
    "Greater": _plain(operator.gt),
    "GreaterOrEqual": _plain(operator.ge),
    "IsInf": Rule(_is_infinite, "detect_negative detect_positive"),
    "IsNaN": _plain(torch.isnan),
    "Less": _plain(operator.lt),
    "LessOrEqual": _plain(operator.le),
    "Mean": Rule(lambda x, _: functools.reduce(torch.add, x) / len(x)),
    "Mod": Rule(lambda x, a: (torch.fmod if a.get("fmod", 0) else torch.remainder)(x[0], x[1]), "fmod"),
    "Not": _plain(operator.invert),
    "Or": _plain(operator.or_),
    "Round": _plain(torch.round),
    "Shrink": Rule(_shrink, "bias lambd"),
    "Sign": _plain(torch.sign),
    "Sin": _plain(torch.sin),
    "Sinh": _plain(torch.sinh),
    "Tan": _plain(torch.tan),
    "ThresholdedRelu": Rule(lambda x, a: torch.where(x[0] > a.get("alpha", 1.0), x[0], torch.zeros_like(x[0])), "alpha"),
    "Where": _plain(torch.where),
    "Xor": _plain(operator.xor),
}
"""On other types, or of no use as part of an activation function."""
