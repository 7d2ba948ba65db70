from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converter.canonicalise.tidy import tidy_spellings
from converter.testing.rewrites import Draft, op_types, rewrite, weights


def tidied(draft: Draft, *outputs: str) -> list[str]:
    return op_types(rewrite(tidy_spellings, draft.model(*outputs), {"n": 2, "h": 3, "w": 4})[0])


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2], [3, 2]])
@pytest.mark.parametrize(("keepdims", "expected"), [(1, ["GlobalAveragePool"]), (0, ["GlobalAveragePool", "Flatten"])])
def test_case_1_mean_over_height_and_width(axes: list[int], keepdims: int, expected: list[str]) -> None:
    draft = Draft(x=("n", 3, "h", "w"))
    output = draft.add("ReduceMean", "x", np.asarray(axes, np.int64), keepdims=keepdims)
    result, changed = rewrite(tidy_spellings, draft.model(output), {"n": 2, "h": 3, "w": 4})
    assert op_types(result) == expected
    assert changed == [output]
    shape = [d.dim_value or d.dim_param for d in result.graph.output[0].type.tensor_type.shape.dim]
    assert shape == ["n", 3, 1, 1][: 4 if keepdims else 2]


@pytest.mark.parametrize(("shape", "axes"), [(("n", 3, "h", "w"), [2]), (("n", 3, "h", "w"), [1, 2]), (("n", 3, "w"), [1, 2])], ids=str)
def test_case_1_other_means_stay(shape: tuple[Any, ...], axes: list[int]) -> None:
    draft = Draft(x=shape)
    assert tidied(draft, draft.add("ReduceMean", "x", np.asarray(axes, np.int64))) == ["ReduceMean"]


@pytest.mark.parametrize("bias", [None, (), (1,), (5,), (1, 5)], ids=str)
@pytest.mark.parametrize(
    "attrs", [{"alpha": 0.5}, {"beta": 3.0}, {"alpha": 2.0, "beta": 0.25, "transB": 1}, {"transA": 1, "alpha": 2.0}], ids=str
)
def test_case_2_factors_of_a_gemm_go_into_its_constants(bias: tuple[int, ...] | None, attrs: dict[str, Any]) -> None:
    draft = Draft(x=(4, 4))
    constants = [weights(*((5, 4) if attrs.get("transB") else (4, 5)))] + ([] if bias is None else [np.asarray(weights(*bias, seed=1))])
    result, changed = rewrite(tidy_spellings, draft.model(draft.add("Gemm", "x", *constants, **attrs)))
    assert changed
    (gemm,) = result.graph.node
    assert {a.name for a in gemm.attribute} <= {"transA", "transB"}
    assert [list(i.dims) for i in result.graph.initializer if i.name == gemm.input[-1]] == (
        [[5]] if bias is not None else [[*constants[0].shape]]
    )


@pytest.mark.parametrize("bias", [(5, 1), (5, 5)], ids=str)
def test_case_2_a_bias_that_differs_between_rows_stays(bias: tuple[int, ...]) -> None:
    draft = Draft(x=(5, 4))
    model = draft.model(draft.add("Gemm", "x", weights(4, 5), weights(*bias), alpha=2.0))
    result, changed = rewrite(tidy_spellings, model)
    assert changed == []
    assert result.graph.node[0].attribute[0].f == 2.0


def test_case_2_a_computed_bias_stays() -> None:
    draft = Draft(x=(4, 4), b=(5,))
    assert rewrite(tidy_spellings, draft.model(draft.add("Gemm", "x", weights(4, 5), "b", beta=2.0)))[1] == []


def softmax_of_flat(draft: Draft, axis: int, op_type: str = "Softmax") -> str:
    flat = draft.add("Flatten", "x", axis=axis)
    return draft.add("Reshape", draft.add(op_type, flat, axis=-1), draft.add("Shape", "x"))


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
def test_case_3_softmax_needs_no_flattening(op_type: str) -> None:
    draft = Draft(x=("n", 2, "h", "w"))
    output = softmax_of_flat(draft, 3, op_type)
    result, changed = rewrite(tidy_spellings, draft.model(output), {"n": 2, "h": 3, "w": 4})
    assert op_types(result) == [op_type]
    assert changed == [output]


def test_case_3_softmax_over_several_axes_stays() -> None:
    draft = Draft(x=("n", 2, "h", "w"))
    assert tidied(draft, softmax_of_flat(draft, 2)) == ["Flatten", "Softmax", "Shape", "Reshape"]


@pytest.mark.parametrize("inside", [0, 1])
def test_case_3_a_flat_tensor_that_is_seen_stays(inside: int) -> None:
    draft = Draft(x=("n", 2, "h", "w"))
    output = softmax_of_flat(draft, 3)
    assert tidied(draft, output, draft.nodes[inside].output[0]) == ["Flatten", "Softmax", "Shape", "Reshape"]


def test_case_3_the_shape_of_another_tensor_is_another_shape() -> None:
    draft = Draft(x=(2, 2, 3, 4), z=(4, 3, 4))
    output = draft.add("Reshape", draft.add("Softmax", draft.add("Flatten", "x", axis=3), axis=-1), draft.add("Shape", "z"))
    assert tidied(draft, output) == ["Flatten", "Softmax", "Shape", "Reshape"]


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("first", [True, False])
def test_case_4_an_expand_in_front_of_arithmetic_is_left_out(op_type: str, first: bool) -> None:
    draft = Draft(x=(2, 3, 4), y=(2, 3, 1))
    wide = draft.add("Expand", "y", np.asarray([2, 3, 4], np.int64))
    assert tidied(draft, draft.add(op_type, *(("x", wide) if first else (wide, "x")))) == [op_type]


def test_case_4_an_expand_stays_where_its_shape_is_needed() -> None:
    """Read as an output, twice by one operator, beside a smaller operand, or by an operator that does not broadcast."""
    draft = Draft(x=(2, 3, 4), y=(2, 3, 1))
    output, twice, beside, joined = (draft.add("Expand", "y", np.asarray([2, 3, 4], np.int64)) for _ in range(4))
    readers = [draft.add("Add", twice, twice), draft.add("Add", beside, "y"), draft.add("Concat", joined, "x", axis=0)]
    assert tidied(draft, output, *readers).count("Expand") == 4


@pytest.mark.parametrize("axes", [1, 2])
def test_case_5_weights_that_are_one_matrix_lose_their_leading_axes(axes: int) -> None:
    draft = Draft(x=("n", 2, 3, 4))
    result, changed = rewrite(tidy_spellings, draft.model(draft.add("MatMul", "x", weights(*[1] * axes, 4, 5))), {"n": 2})
    assert len(changed) == 1
    (product,) = result.graph.node
    assert [list(i.dims) for i in result.graph.initializer if i.name == product.input[1]] == [[4, 5]]


@pytest.mark.parametrize(
    ("x", "weight"),
    [((3, 4), (1, 4, 5)), ((4,), (1, 4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (1, 1, 4, 5)), ((2, 3, 4), (4, 5))],
    ids=str,
)
def test_case_5_other_weights_stay(x: tuple[int, ...], weight: tuple[int, ...]) -> None:
    """If they bring axes of their own, or are several matrices, or one already."""
    draft = Draft(x=x)
    assert rewrite(tidy_spellings, draft.model(draft.add("MatMul", "x", weights(*weight))))[1] == []
