from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.canonicalise.clusters import fuse_activations
from converter.canonicalise.conftest import Draft, Operand, op_types, rewrite

Draw = Callable[[st.SearchStrategy[Any]], Any]
Spelling = Callable[[Draw, Draft, str], str]
FEW = settings(max_examples=40, deadline=None, derandomize=True)
HALF, SQRT2, TANH_FACTOR = 0.5, math.sqrt(2), math.sqrt(2 / math.pi)


# A spelling draws its own operand orders and constants, and appends the activation of x to a graph.


def either(draw: Draw, draft: Draft, op_type: str, left: Operand, right: Operand) -> str:
    """A commutative operator with its operands in either order."""
    operands = draw(st.permutations([left, right]))
    return draft.add(op_type, *operands)


def product(draw: Draw, draft: Draft, factors: Sequence[Operand]) -> str:
    """The product of all factors in any order and association; a constant may also be divided by."""
    order = list(draw(st.permutations(list(factors))))
    while len(order) > 1:
        at = draw(st.integers(0, len(order) - 2))
        left, right = order[at], order[at + 1]
        if isinstance(left, float) and isinstance(right, float):
            merged: Operand = left * right
        elif isinstance(right, float) and isinstance(left, str) and draw(st.booleans()):
            merged = draft.add("Div", left, 1 / right)
        else:
            merged = either(draw, draft, "Mul", left, right)
        order[at : at + 2] = [merged]
    assert isinstance(order[0], str)
    return order[0]


def erf_gelu(draw: Draw, draft: Draft, x: str) -> str:
    scaled = product(draw, draft, [x, 1 / SQRT2])
    plus_one = either(draw, draft, "Add", draft.add("Erf", scaled), 1.0)
    return product(draw, draft, [x, plus_one, HALF])


def cube(draw: Draw, draft: Draft, x: str) -> str:
    return draft.add("Pow", x, 3.0) if draw(st.booleans()) else product(draw, draft, [x, x, x])


def tanh_gelu(draw: Draw, draft: Draft, x: str) -> str:
    inner = either(draw, draft, "Add", x, product(draw, draft, [cube(draw, draft, x), 0.044715]))
    plus_one = either(draw, draft, "Add", draft.add("Tanh", product(draw, draft, [inner, TANH_FACTOR])), 1.0)
    return product(draw, draft, [x, plus_one, HALF])


def one_plus_exp(draw: Draw, draft: Draft, x: str) -> str:
    negative = draft.add("Neg", x) if draw(st.booleans()) else product(draw, draft, [x, -1.0])
    return either(draw, draft, "Add", draft.add("Exp", negative), 1.0)


def sigmoid_by_exp(draw: Draw, draft: Draft, x: str) -> str:
    return draft.add("Reciprocal", one_plus_exp(draw, draft, x)) if draw(st.booleans()) else draft.add("Div", 1.0, one_plus_exp(draw, draft, x))


def sigmoid_by_tanh(draw: Draw, draft: Draft, x: str) -> str:
    return product(draw, draft, [either(draw, draft, "Add", draft.add("Tanh", product(draw, draft, [x, HALF])), 1.0), HALF])


def silu(draw: Draw, draft: Draft, x: str) -> str:
    kind = draw(st.sampled_from(["paddle", "quotient", "exp", "tanh"]))
    if kind == "quotient":
        return draft.add("Div", x, one_plus_exp(draw, draft, x))
    gates: dict[str, Callable[[], str]] = {
        "paddle": lambda: draft.add("Sigmoid", product(draw, draft, [x, 1.0])),
        "exp": lambda: sigmoid_by_exp(draw, draft, x),
        "tanh": lambda: sigmoid_by_tanh(draw, draft, x),
    }
    return either(draw, draft, "Mul", x, gates[kind]())


def clamp(draw: Draw, draft: Draft, x: str, low: float, high: float) -> str:
    kind = draw(st.sampled_from(["Clip", "MinMax", "MaxMin", "ReluMin"] if low == 0 else ["Clip", "MinMax", "MaxMin"]))
    if kind == "Clip":
        return draft.add("Clip", x, low, high)
    if kind == "MinMax":
        return either(draw, draft, "Min", either(draw, draft, "Max", x, low), high)
    if kind == "MaxMin":
        return either(draw, draft, "Max", either(draw, draft, "Min", x, high), low)
    return either(draw, draft, "Min", draft.add("Relu", x), high)


def hard_sigmoid(draw: Draw, draft: Draft, x: str) -> str:
    if draw(st.booleans()):
        return product(draw, draft, [clamp(draw, draft, either(draw, draft, "Add", x, 3.0), 0.0, 6.0), 1 / 6])
    return clamp(draw, draft, either(draw, draft, "Add", product(draw, draft, [x, 1 / 6]), HALF), 0.0, 1.0)


def hard_swish(draw: Draw, draft: Draft, x: str) -> str:
    kind = draw(st.sampled_from(["operator", "gate", "six"]))
    if kind == "operator":
        return either(draw, draft, "Mul", x, draft.add("HardSigmoid", x, alpha=1 / 6, beta=0.5))
    if kind == "gate":
        return either(draw, draft, "Mul", x, hard_sigmoid(draw, draft, x))
    return product(draw, draft, [x, clamp(draw, draft, either(draw, draft, "Add", x, 3.0), 0.0, 6.0), 1 / 6])


SPELLINGS: dict[str, tuple[Spelling, list[str]]] = {
    "erf GELU": (erf_gelu, ["Gelu"]),
    "tanh GELU": (tanh_gelu, ["Gelu"]),
    "SiLU": (silu, ["Sigmoid", "Mul"]),
    "HardSwish": (hard_swish, ["HardSwish"]),
    "HardSigmoid": (hard_sigmoid, ["HardSigmoid"]),
    "Sigmoid by Exp": (sigmoid_by_exp, ["Sigmoid"]),
    "Sigmoid by Tanh": (sigmoid_by_tanh, ["Sigmoid"]),
}




@pytest.mark.parametrize("name", SPELLINGS)
@given(data=st.data())
@FEW
def test_any_spelling_becomes_the_one_operator(name: str, data: st.DataObject) -> None:
    spelling, expected = SPELLINGS[name]
    draft = Draft(x=(1, 64))
    output = spelling(data.draw, draft, "x")
    result, changed = rewrite(fuse_activations, draft.model(output))
    assert op_types(result) == expected
    assert output in changed
    assert output in result.graph.node[-1].output
