"""Constants pass moves of numbers where they give every number of a channel the same; parts of a Split that are read become slices."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converter.canonicalise.past_movement import bring_forward
from converter.graph.builder import remove_dead
from converter.runtime.session import run_model
from converter.testing.sketch import Sketch

C, N = 6, 20


def linear(s: Sketch, batch: int | str = 2) -> str:
    return s.add("MatMul", s.input("x", batch, N, 4), s.normal(4, C))


def rewritten(model: ir.Model, *shape: int) -> list[str]:
    """Rewrite, compare on random numbers, and return the operators of the result."""
    feed = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    expected = run_model(ir.to_proto(model), feed)
    changed = bring_forward(model)
    remove_dead(model)
    got = run_model(ir.to_proto(model), feed)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-6)
    return [n.op_type for n in model.graph] if changed else []


@pytest.mark.parametrize("batch", [2, "batch"])
@pytest.mark.parametrize("op_type", ["Mul", "Add"])
def test_constants_of_flattened_tokens_go_to_the_layer(op_type: str, batch: int | str) -> None:
    s = Sketch()
    flat = s.add("Flatten", linear(s, batch), axis=2)
    tokens = s.add("Reshape", s.add(op_type, flat, s.normal(1, C)), s.constant([-1, N, C], np.int64))
    model = s.model(s.add("Identity", tokens))
    assert rewritten(model, 2, N, 4) == ["MatMul", op_type, "Identity"]


def test_a_factor_and_an_offset_pass_one_after_the_other() -> None:
    s = Sketch()
    flat = s.add("Reshape", linear(s), s.constant([-1, C], np.int64))
    model = s.model(s.add("Add", s.add("Mul", flat, s.normal(1, C)), s.normal(C)))
    assert rewritten(model, 2, N, 4) == ["MatMul", "Mul", "Add", "Reshape"]


def test_heads_are_followed_through_a_transpose() -> None:
    """A factor for each head belongs to that head's channels."""
    s = Sketch()
    heads = s.add("Transpose", s.add("Reshape", linear(s), s.constant([0, N, 3, 2], np.int64)), perm=[0, 2, 1, 3])
    assert rewritten(s.model(s.add("Mul", heads, s.normal(3, 1, 1))), 2, N, 4) == ["MatMul", "Mul", "Reshape", "Transpose"]


@pytest.mark.parametrize("case", ["per place", "read twice", "no layer", "larger"])
def test_what_is_not_one_number_for_each_channel_of_a_layer_stays(case: str) -> None:
    s = Sketch()
    x = s.input("x", 2, N, C) if case == "no layer" else linear(s)
    moved = s.add("Transpose", x, perm=[0, 2, 1])
    operand = {"per place": s.normal(1, 1, N), "larger": s.normal(2, 1, C, N)}.get(case, s.normal(C, 1))
    outputs = [s.add("Mul", moved, operand), *([s.add("Relu", moved)] if case == "read twice" else [])]
    assert rewritten(s.model(*outputs), 2, N, C if case == "no layer" else 4) == []


def test_two_views_become_one() -> None:
    s = Sketch()
    flat = s.add("Flatten", s.input("x", "batch", N, C), axis=2)
    heads = s.add("Reshape", flat, s.constant([-1, N, 3, 2], np.int64))
    assert rewritten(s.model(s.add("Relu", heads)), 2, N, C) == ["Reshape", "Relu"]


@pytest.mark.parametrize("case", ["read twice", "an output", "two open sizes"])
def test_views_that_others_need_or_that_no_constant_can_say_stay(case: str) -> None:
    s = Sketch()
    first = s.add("Unsqueeze", s.input("x", "batch", "height" if case == "two open sizes" else N, C), s.constant([1], np.int64))
    back = s.add("Squeeze", first, s.constant([1], np.int64))
    outputs = {"an output": [back], "read twice": [s.add("Neg", first), s.add("Relu", back)]}.get(case, [s.add("Relu", back)])
    assert rewritten(s.model(*outputs), 2, N, C) == []


@pytest.mark.parametrize("sizes", [[2, 3, 1], None])
def test_a_split_of_which_parts_are_read_becomes_slices(sizes: list[int] | None) -> None:
    s = Sketch()
    x = s.input("x", 2, 6)
    given: dict[str, Any] = {"num_outputs": 3} if sizes is None else {}
    parts = s.split("Split", x, *([] if sizes is None else [s.constant(sizes, np.int64)]), outputs=3, axis=1, **given)
    assert rewritten(s.model(s.add("Relu", parts[0]), s.add("Neg", parts[2])), 2, 6) == ["Slice", "Slice", "Relu", "Neg"]


def test_a_split_that_is_read_whole_stays() -> None:
    s = Sketch()
    parts = s.split("Split", s.input("x", 2, 6), outputs=2, axis=1, num_outputs=2)
    assert rewritten(s.model(*parts), 2, 6) == []
