from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from converter.torch_backend import ops as torch_ops
from converter.torch_backend.ops.testing.operators import Array, check_operator, floats, positive

X = floats(2, 3, 4) * 4
ROW = floats(4, seed=1)
NUMBERS = np.asarray([-7, -3, 0, 3, 7], np.int64)
DIVISORS = np.asarray([2, -2, 3, -3, 2], np.int64)
TRUE = np.asarray([[True], [False]])
MIXED = np.asarray([True, False, True])


@pytest.mark.parametrize(
    "op_type",
    [
        "Abs",
        "Ceil",
        "Cos",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "HardSwish",
        "Identity",
        "Mish",
        "Neg",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softplus",
        "Softsign",
        "Tanh",
    ],
)
def test_functions_of_one_tensor(op_type: str) -> None:
    check_operator(op_type, [X])


@pytest.mark.parametrize("op_type", ["Log", "Reciprocal", "Sqrt"])
def test_functions_of_positive_numbers(op_type: str) -> None:
    check_operator(op_type, [positive(2, 3)])


@pytest.mark.parametrize(
    ("op_type", "attrs"),
    [
        ("Elu", {"alpha": 0.3}),
        ("Gelu", {}),
        ("Gelu", {"approximate": "tanh"}),
        ("HardSigmoid", {}),
        ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.4}),
        ("LeakyRelu", {}),
        ("LeakyRelu", {"alpha": 0.3}),
        ("Selu", {"alpha": 1.2, "gamma": 0.7}),
        ("Cast", {"to": 7}),
        ("Cast", {"to": 9}),
        ("Cast", {"to": 11}),
        ("Cast", {"to": 5}),
        ("Celu", {}),
        ("Celu", {"alpha": 0.4}),
        ("Shrink", {}),
        ("Shrink", {"lambd": 0.7, "bias": 0.2}),
        ("ThresholdedRelu", {}),
        ("ThresholdedRelu", {"alpha": 0.3}),
    ],
)
def test_functions_with_attributes(op_type: str, attrs: dict[str, Any]) -> None:
    check_operator(op_type, [X], **attrs)


def test_rounding_takes_halves_to_even_numbers() -> None:
    check_operator("Round", [np.asarray([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)])


@pytest.mark.parametrize("op_type", ["Add", "Div", "Max", "Min", "Mul", "PRelu", "Sub", "Sum"])
@pytest.mark.parametrize("other", [ROW, floats(3, 1, seed=2), np.asarray(1.5, np.float32)], ids=["row", "column", "number"])
def test_binary_operators_broadcast(op_type: str, other: Array) -> None:
    check_operator(op_type, [X, other])


@pytest.mark.parametrize("op_type", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
def test_comparisons(op_type: str) -> None:
    check_operator(op_type, [np.asarray([1.0, 2.0, 3.0], np.float32), np.asarray([[2.0], [3.0]], np.float32)])


@pytest.mark.parametrize("op_type", ["And", "Or", "Xor"])
def test_logic(op_type: str) -> None:
    check_operator(op_type, [TRUE, MIXED])


def test_not() -> None:
    check_operator("Not", [MIXED])


@pytest.mark.parametrize("op_type", ["Max", "Min", "Sum"])
def test_any_number_of_operands(op_type: str) -> None:
    check_operator(op_type, [X, ROW, floats(3, 1, seed=3)])
    check_operator(op_type, [X])


def test_division_of_integers_rounds_towards_zero() -> None:
    check_operator("Div", [NUMBERS, DIVISORS])


@pytest.mark.parametrize("fmod", [0, 1])
def test_remainder_of_integers_takes_the_sign_of_the_divisor_or_of_the_number(fmod: int) -> None:
    check_operator("Mod", [NUMBERS, DIVISORS], fmod=fmod)


def test_power_keeps_the_type_of_its_base() -> None:
    check_operator("Pow", [positive(2, 3), floats(3)])
    check_operator("Pow", [positive(2, 3), np.asarray(2, np.int64)])
    check_operator("Pow", [NUMBERS, np.asarray(2.0, np.float32)])


@pytest.mark.parametrize("low", [None, np.asarray(-1.0, np.float32)])
@pytest.mark.parametrize("high", [None, np.asarray(2.0, np.float32)])
def test_clip_with_either_limit(low: Array | None, high: Array | None) -> None:
    check_operator("Clip", [X, low, high])


def test_where_broadcasts_all_three() -> None:
    check_operator("Where", [TRUE, floats(3), np.asarray(9.0, np.float32)])


def test_dropout_passes_everything_through() -> None:
    check_operator("Dropout", [X])


def test_unknown_element_type_is_named() -> None:
    with pytest.raises(torch_ops.UnknownOperatorError, match="'Cast' with to=17"):
        torch_ops.apply("Cast", [torch.zeros(1)], {"to": 17})


def test_half_precision_is_rounded_to_in_float32_so_that_small_gradients_pass() -> None:
    x = torch.tensor([1.0, 2.0005, -1e6, np.inf, 1e-9], requires_grad=True)
    (half,) = torch_ops.apply("Cast", [x], {"to": 10})
    assert half.dtype == torch.float32
    assert half.tolist() == x.detach().half().tolist() == [1.0, 2.0, -np.inf, np.inf, 0.0]
    (gradient,) = torch.autograd.grad((1e-12 * half[:2]).sum(), x)
    assert gradient[:2].tolist() == [pytest.approx(1e-12)] * 2


def test_cast_to_the_type_of_another() -> None:
    check_operator("CastLike", [X, np.zeros(1, np.int64)])


ODD = np.asarray([-np.inf, -1.0, 0.0, np.nan, np.inf], np.float32)


def test_what_is_no_number() -> None:
    check_operator("IsNaN", [ODD])


@pytest.mark.parametrize(
    "attrs", [{}, {"detect_negative": 0}, {"detect_positive": 0}, {"detect_negative": 0, "detect_positive": 0}], ids=str
)
def test_what_is_infinite(attrs: dict[str, Any]) -> None:
    check_operator("IsInf", [ODD], **attrs)


@pytest.mark.parametrize("op_type", ["Acos", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan"])
def test_angles(op_type: str) -> None:
    check_operator(op_type, [np.linspace(-0.9, 0.9, 7, dtype=np.float32)])


def test_angle_of_a_hyperbola() -> None:
    check_operator("Acosh", [positive(4) + 1])


def test_mean_of_any_number_of_operands() -> None:
    check_operator("Mean", [X, ROW, floats(3, 1, seed=3)])
    check_operator("Mean", [X])
