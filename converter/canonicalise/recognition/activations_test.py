from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.canonicalise.recognition.activations import fuse_activations
from converter.testing.rewrites import Draft, Operand, op_types, rewrite

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
    return (
        draft.add("Reciprocal", one_plus_exp(draw, draft, x))
        if draw(st.booleans())
        else draft.add("Div", 1.0, one_plus_exp(draw, draft, x))
    )


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
    assert changed
    assert list(result.graph.node[-1].output) == [output]  # the name that readers of the activation know


# The cases of the module, one by one.


def spelled_gelu(draft: Draft, x: str, *, root: float = SQRT2, factor: float = HALF) -> str:
    plus_one = draft.add("Add", draft.add("Erf", draft.add("Div", x, root)), 1.0)
    return draft.add("Mul", draft.add("Mul", x, plus_one), factor)


def spelled_tanh_gelu(draft: Draft, x: str, *, cubic: float = 0.044715, factor: float = TANH_FACTOR) -> str:
    inner = draft.add("Add", x, draft.add("Mul", draft.add("Pow", x, 3.0), cubic))
    plus_one = draft.add("Add", draft.add("Tanh", draft.add("Mul", inner, factor)), 1.0)
    return draft.add("Mul", draft.add("Mul", x, plus_one), HALF)


@pytest.mark.parametrize(("spell", "approximate"), [(spelled_gelu, b"none"), (spelled_tanh_gelu, b"tanh")])
def test_case_1_gelu_of_either_kind(spell: Callable[[Draft, str], str], approximate: bytes) -> None:
    draft = Draft(x=("n", 8))
    result, changed = rewrite(fuse_activations, draft.model(spell(draft, "x")))
    assert len(changed) == 1
    (gelu,) = result.graph.node
    assert gelu.op_type == "Gelu"
    assert [a.s for a in gelu.attribute] == [approximate]


def test_case_2_silu_becomes_sigmoid_and_product() -> None:
    draft = Draft(x=("n", 8))
    output = draft.add("Div", "x", draft.add("Add", draft.add("Exp", draft.add("Neg", "x")), 1.0))
    result, _ = rewrite(fuse_activations, draft.model(output))
    sigmoid, multiply = result.graph.node
    assert (sigmoid.op_type, list(sigmoid.input)) == ("Sigmoid", ["x"])
    assert (multiply.op_type, sorted(multiply.input)) == ("Mul", sorted(["x", sigmoid.output[0]]))


def test_case_3_hard_sigmoid_keeps_its_slope_and_offset() -> None:
    draft = Draft(x=("n", 8))
    output = draft.add("Clip", draft.add("Add", draft.add("Mul", "x", 0.2), 0.4), 0.0, 1.0)
    result, _ = rewrite(fuse_activations, draft.model(output))
    assert op_types(result) == ["HardSigmoid"]
    assert {a.name: round(a.f, 6) for a in result.graph.node[0].attribute} == {"alpha": 0.2, "beta": 0.4}


@pytest.mark.parametrize(
    ("spell", "expected"),
    [
        (lambda d: d.add("Div", 1.0, d.add("Add", 1.0, d.add("Exp", d.add("Neg", "x")))), "Sigmoid"),
        (lambda d: d.add("Max", "x", 0.0), "Relu"),
        (lambda d: d.add("Clip", "x", 0.0), "Relu"),
        (lambda d: d.add("Min", d.add("Max", "x", -1.5), 2.5), "Clip"),
        (lambda d: d.add("Min", d.add("Relu", "x"), 6.0), "Clip"),
    ],
)
def test_case_4_sigmoid_relu_and_clip(spell: Callable[[Draft], str], expected: str) -> None:
    draft = Draft(x=("n", 8))
    result, changed = rewrite(fuse_activations, draft.model(spell(draft)))
    assert len(changed) == 1
    assert op_types(result) == [expected]


@pytest.mark.parametrize("approximate", ["erf", "tanh"])
def test_case_5_twice_a_gelu_becomes_gelu_and_factor_two(approximate: str) -> None:
    draft = Draft(x=("n", 8))
    if approximate == "erf":
        output = draft.add("Mul", "x", draft.add("Add", draft.add("Erf", draft.add("Mul", "x", 1 / SQRT2)), 1.0))
    else:
        inner = draft.add("Add", "x", draft.add("Mul", draft.add("Pow", "x", 3.0), 0.044715))
        output = draft.add("Mul", "x", draft.add("Add", draft.add("Tanh", draft.add("Mul", inner, TANH_FACTOR)), 1.0))
    result, _ = rewrite(fuse_activations, draft.model(output))
    assert op_types(result) == ["Gelu", "Mul"]


def test_several_activations_in_a_row_and_side_by_side() -> None:
    draft = Draft(x=("n", 8))
    left = spelled_gelu(draft, spelled_gelu(draft, "x"))
    right = spelled_tanh_gelu(draft, "x")
    result, changed = rewrite(fuse_activations, draft.model(draft.add("Add", left, right)))
    assert sorted(op_types(result)) == ["Add", "Gelu", "Gelu", "Gelu"]
    assert len(changed) == 3


def test_constants_of_any_shape_with_one_element_count_as_numbers() -> None:
    draft = Draft(x=("n", 3, 4, 4))
    shape = np.ones((1, 1, 1, 1), np.float32)
    plus_one = draft.add("Add", draft.add("Erf", draft.add("Div", "x", shape * np.float32(SQRT2))), shape[0])
    output = draft.add("Mul", draft.add("Mul", "x", plus_one), shape[0, 0, 0] * np.float32(0.5))
    assert op_types(rewrite(fuse_activations, draft.model(output))[0]) == ["Gelu"]


# What has to be left alone.


def unchanged(draft: Draft, *outputs: str) -> None:
    result, changed = rewrite(fuse_activations, draft.model(*outputs))
    assert changed == []
    assert op_types(result) == [n.op_type for n in draft.nodes]


@pytest.mark.parametrize("inside", range(3))
def test_a_group_whose_inside_is_an_output_of_the_model_is_left_alone(inside: int) -> None:
    draft = Draft(x=(1, 8))
    output = spelled_gelu(draft, "x")
    unchanged(draft, output, draft.nodes[inside].output[0])


@pytest.mark.parametrize("inside", range(3))
def test_a_group_whose_inside_is_read_elsewhere_is_left_alone(inside: int) -> None:
    draft = Draft(x=(1, 8))
    output = spelled_gelu(draft, "x")
    unchanged(draft, output, draft.add("Transpose", draft.nodes[inside].output[0]))


def test_quick_gelu_is_neither_gelu_nor_silu() -> None:
    draft = Draft(x=(1, 8))
    unchanged(draft, draft.add("Mul", "x", draft.add("Sigmoid", draft.add("Mul", "x", 1.702))))


@pytest.mark.parametrize("off", [1e-4, -1e-4, 1e-2])
@pytest.mark.parametrize("constant", ["root", "cubic", "tanh factor"])
def test_near_misses_are_not_gelu(constant: str, off: float) -> None:
    draft = Draft(x=(1, 8))
    spell: dict[str, Callable[[], str]] = {
        "root": lambda: spelled_gelu(draft, "x", root=SQRT2 * (1 + off)),
        "cubic": lambda: spelled_tanh_gelu(draft, "x", cubic=0.044715 * (1 + 10 * off)),
        "tanh factor": lambda: spelled_tanh_gelu(draft, "x", factor=TANH_FACTOR * (1 + off)),
    }
    unchanged(draft, spell[constant]())


def test_a_factor_near_one_half_stays_a_factor() -> None:
    draft = Draft(x=(1, 8))
    result, _ = rewrite(fuse_activations, draft.model(spelled_gelu(draft, "x", factor=0.50005)))
    assert op_types(result) == ["Gelu", "Mul", "Mul"]  # twice a GELU, and the factor


@pytest.mark.parametrize(("offset", "top", "divisor"), [(3.001, 6.0, 6.0), (3.0, 6.01, 6.0), (3.0, 6.0, 6.003)])
def test_near_misses_are_not_hard_swish(offset: float, top: float, divisor: float) -> None:
    draft = Draft(x=(1, 8))
    output = draft.add("Div", draft.add("Mul", "x", draft.add("Clip", draft.add("Add", "x", offset), 0.0, top)), divisor)
    unchanged(draft, output)


@pytest.mark.parametrize("top", [13.0, 100.0, 1e9])
def test_a_limit_far_out_is_not_overlooked(top: float) -> None:
    draft = Draft(x=(1, 8))
    result, _ = rewrite(fuse_activations, draft.model(draft.add("Min", draft.add("Relu", "x"), top)))
    assert op_types(result) == ["Clip"]
    silu = Draft(x=(1, 8))
    unchanged(silu, silu.add("Min", silu.add("Mul", "x", silu.add("Sigmoid", "x")), top))


TINY = [1e-5, 1e-6, 1e-7, 1e-8, 1e-12, 1e-20, 1e-30]


@pytest.mark.parametrize("guard", TINY)
def test_a_number_that_keeps_a_division_or_a_logarithm_finite_is_no_zero(guard: float) -> None:
    """Relu would give 0 in its place, and what is behind it infinity."""
    draft = Draft(x=(1, 8))
    unchanged(draft, draft.add("Div", 1.0, draft.add("Clip", "x", guard)), draft.add("Log", draft.add("Max", "x", guard)))


@pytest.mark.parametrize("guard", TINY)
@pytest.mark.parametrize("spell", ["Add", "Sub", "Max"])
@pytest.mark.parametrize("activation", ["Sigmoid", "Gelu", "HardSwish", "HardSigmoid", "Relu"])
def test_a_function_with_a_guard_behind_it_is_another_function(activation: str, spell: str, guard: float) -> None:
    draft = Draft(x=(1, 8))
    unchanged(draft, draft.add(spell, draft.add(activation, "x"), guard))


@pytest.mark.parametrize("guard", TINY)
def test_a_guard_inside_a_spelling_makes_another_function(guard: float) -> None:
    draft = Draft(x=(1, 8))
    unchanged(draft, draft.add("Mul", "x", draft.add("Add", draft.add("Sigmoid", "x"), guard)))
    spelled = Draft(x=(1, 8))
    by_exp = spelled.add("Div", 1.0, spelled.add("Add", spelled.add("Exp", spelled.add("Neg", "x")), 1.0))
    result, _ = rewrite(fuse_activations, spelled.model(spelled.add("Max", by_exp, guard)))
    assert op_types(result) == ["Sigmoid", "Max"]


@pytest.mark.parametrize("shift", TINY)
def test_a_bend_beside_zero_is_no_relu(shift: float) -> None:
    draft = Draft(x=(1, 8))
    unchanged(draft, draft.add("Relu", draft.add("Add", "x", shift)), draft.add("Relu", draft.add("Mul", "x", 1 + 1e-6)))


@pytest.mark.parametrize("low", TINY)
def test_a_clip_keeps_its_lower_limit_exactly(low: float) -> None:
    draft = Draft(x=(1, 8))
    result, _ = rewrite(fuse_activations, draft.model(draft.add("Min", draft.add("Max", "x", low), 1.0)))
    assert op_types(result) == ["Clip"]
    assert {float(onnx.numpy_helper.to_array(i)) for i in result.graph.initializer} == {float(np.float32(low)), 1.0}


def test_a_line_clipped_just_above_zero_is_no_hard_sigmoid() -> None:
    draft = Draft(x=(1, 8))
    line = draft.add("Add", draft.add("Mul", "x", 0.2), 0.5)
    unchanged(draft, draft.add("Clip", line, 1e-7, 1.0))


def test_a_factor_per_channel_makes_another_function() -> None:
    draft = Draft(x=(1, 8))
    unchanged(draft, draft.add("Mul", "x", draft.add("Sigmoid", draft.add("Mul", "x", np.linspace(0.5, 1.5, 8)))))


def test_two_sources_make_no_activation() -> None:
    draft = Draft(x=(1, 8), y=(1, 8))
    unchanged(draft, draft.add("Mul", "x", draft.add("Sigmoid", "y")))


def test_a_constant_that_adds_a_dimension_is_not_absorbed() -> None:
    draft = Draft(x=(8,))
    unchanged(draft, draft.add("Min", draft.add("Relu", "x"), np.full((1, 1, 1), 6.0)))


def test_an_exponent_that_is_computed_is_no_constant() -> None:
    draft = Draft(x=(1, 8))
    exponent = draft.add("Cast", draft.add("Ceil", draft.add("Abs", "x")), to=7)
    unchanged(draft, draft.add("Relu", draft.add("Pow", draft.add("Abs", "x"), exponent)))


CANONICAL: list[Callable[[Draft], str]] = [
    lambda d: d.add("Gelu", "x"),
    lambda d: d.add("Mul", d.add("Gelu", "x"), 2.0),
    lambda d: d.add("Mul", "x", d.add("Sigmoid", "x")),
    lambda d: d.add("Mul", d.add("Sigmoid", "x"), "x"),
    lambda d: d.add("HardSwish", "x"),
    lambda d: d.add("HardSigmoid", "x"),
    lambda d: d.add("Clip", "x", 0.0, 6.0),
    lambda d: d.add("Clip", "x", 0.0, 1.0),
    lambda d: d.add("Relu", "x"),
    lambda d: d.add("Sigmoid", "x"),
    lambda d: d.add("Add", d.add("Mul", "x", 2.0), 1.0),
]


@pytest.mark.parametrize("spell", CANONICAL)
def test_what_is_canonical_stays_as_it_is(spell: Callable[[Draft], str]) -> None:
    draft = Draft(x=("n", 8))
    unchanged(draft, spell(draft))
