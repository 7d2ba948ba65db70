from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from converter.canonicalise import canonicalise
from converter.canonicalise.folding.parallel_layers import add_parallel_layers
from converter.testing.rewrites import Draft, Operand, op_types, random_feed, rewrite, weights


def two_layers(op_type: str, biases: tuple[bool, bool], attrs: tuple[dict[str, Any], dict[str, Any]] = ({}, {})) -> tuple[Draft, str, str]:
    """Two layers of random weights over the one input of the draft, and the names of what they write."""
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "Conv": ((1, 4, 6, 5), (3, 4, 3, 3)),
        "Gemm": ((2, 4), (4, 3)),
        "MatMul": ((2, 5, 4), (4, 3)),
    }
    x, weight = shapes[op_type]
    draft = Draft(x=x)
    outputs = []
    for seed in (0, 1):
        operands: list[Operand] = [weights(*weight, seed=seed)]
        if biases[seed]:
            operands.append(weights(3, seed=seed + 2))
        outputs.append(draft.add(op_type, "x", *operands, **attrs[seed]))
    return draft, outputs[0], outputs[1]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["Conv", "Gemm"]), st.tuples(st.booleans(), st.booleans()), st.booleans())
def test_two_layers_that_are_added_become_one(op_type: str, biases: tuple[bool, bool], swapped: bool) -> None:
    draft, first, second = two_layers(op_type, biases)
    total = draft.add("Add", *((second, first) if swapped else (first, second)))
    result, changed = rewrite(add_parallel_layers, draft.model(total))  # compares the outputs
    assert op_types(result) == [op_type]
    assert changed == [total]


def test_products_with_constants_are_added_as_well() -> None:
    draft, first, second = two_layers("MatMul", (False, False))
    result, _ = rewrite(add_parallel_layers, draft.model(draft.add("Add", first, second)))
    assert op_types(result) == ["MatMul"]


def test_the_weights_are_the_sums() -> None:
    draft = Draft(x=(1, 2))
    first = draft.add("Gemm", "x", np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([10.0, 20.0]))
    second = draft.add("Gemm", "x", np.array([[0.5, 0.25], [-3.0, 1.0]]), np.array([1.0, -20.0]))
    result, _ = rewrite(add_parallel_layers, draft.model(draft.add("Add", first, second)))
    (gemm,) = result.graph.node
    held = {i.name: numpy_helper.to_array(i) for i in result.graph.initializer}
    np.testing.assert_array_equal(held[gemm.input[1]], [[1.5, 2.25], [0.0, 5.0]])
    np.testing.assert_array_equal(held[gemm.input[2]], [11.0, 0.0])


def test_three_layers_become_one_too() -> None:
    draft, first, second = two_layers("Gemm", (True, True))
    third = draft.add("Gemm", "x", weights(4, 3, seed=7))
    result, changed = rewrite(add_parallel_layers, draft.model(draft.add("Add", third, draft.add("Add", first, second))))
    assert op_types(result) == ["Gemm"]
    assert len(changed) == 2


@pytest.mark.parametrize(
    ("op_type", "attrs", "why"),
    [
        ("Conv", ({"strides": [1, 1], "pads": [1, 1, 1, 1]}, {"dilations": [2, 2], "pads": [2, 2, 2, 2]}), "other attributes"),
        ("Gemm", ({"alpha": 2.0}, {"alpha": 2.0}), "factors"),
    ],
    ids=lambda v: v if isinstance(v, str) and " " in v else "",
)
def test_layers_that_differ_stay(op_type: str, attrs: tuple[dict[str, Any], dict[str, Any]], why: str) -> None:
    draft, first, second = two_layers(op_type, (True, True), attrs)
    assert rewrite(add_parallel_layers, draft.model(draft.add("Add", first, second)))[1] == []


@pytest.mark.parametrize("reader", ["an operator", "the caller"])
def test_a_layer_that_something_else_reads_stays(reader: str) -> None:
    draft, first, second = two_layers("Gemm", (True, True))
    total = draft.add("Add", first, second)
    other = draft.add("Relu", first) if reader == "an operator" else first
    assert rewrite(add_parallel_layers, draft.model(total, other))[1] == []


def test_layers_over_different_inputs_stay() -> None:
    draft = Draft(x=(2, 4), y=(2, 4))
    first, second = (draft.add("Gemm", name, weights(4, 3)) for name in ("x", "y"))
    assert rewrite(add_parallel_layers, draft.model(draft.add("Add", first, second)))[1] == []


def test_one_layer_added_to_itself_stays() -> None:
    draft = Draft(x=(2, 4))
    layer = draft.add("Gemm", "x", weights(4, 3))
    assert rewrite(add_parallel_layers, draft.model(draft.add("Add", layer, layer)))[1] == []


def test_two_averaged_heads_end_as_one_layer() -> None:
    draft, first, second = two_layers("Gemm", (True, True))
    model = draft.model(draft.add("Div", draft.add("Add", first, second), 2.0))
    assert [n.op_type for n in canonicalise(model, [random_feed(model)]).model.graph] == ["Gemm"]
