from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.canonicalise.recognition.normalization import fuse_normalizations
from converter.canonicalise.standard import to_canonical_opset
from converter.graph.queries import constant
from converter.testing.rewrites import Array, Draft, assert_equal_outputs, op_types, random_feed, rewrite, weights

FEW = settings(max_examples=60, deadline=None, derandomize=True)
WIDTH = 16
SHAPE = ("n", 5, WIDTH)


def reduced(draft: Draft, op_type: str, x: str, axis: int = -1, keepdims: int = 1) -> str:
    """A reduction: the axes are an input from opset 18 on (ReduceSum: 13), an attribute before."""
    if draft.opset >= (13 if op_type == "ReduceSum" else 18):
        return draft.add(op_type, x, np.asarray([axis], np.int64), keepdims=keepdims)
    return draft.add(op_type, x, axes=[axis], keepdims=keepdims)


def layer_norm(
    draft: Draft,
    x: str,
    *,
    axis: int = -1,
    squared: str = "Pow",
    quotient: str = "Div",
    centred_twice: bool = False,
    epsilon: float = 1e-5,
    gamma: Array | None = None,
    beta: Array | None = None,
    swapped: bool = False,
) -> str:
    """LayerNorm as exporters write it."""

    def either(op_type: str, left: Any, right: Any) -> str:
        return draft.add(op_type, right, left) if swapped else draft.add(op_type, left, right)

    mean = reduced(draft, "ReduceMean", x, axis)
    centred = draft.add("Sub", x, mean)
    other = draft.add("Sub", x, mean) if centred_twice else centred
    square = draft.add("Pow", other, 2.0) if squared == "Pow" else draft.add("Mul", other, other)
    variance = either("Add", reduced(draft, "ReduceMean", square, axis), epsilon)
    if quotient == "Div":
        y = draft.add("Div", centred, draft.add("Sqrt", variance))
    elif quotient == "Reciprocal":
        y = either("Mul", centred, draft.add("Reciprocal", draft.add("Sqrt", variance)))
    else:
        y = either("Mul", centred, draft.add("Pow", variance, -0.5))
    y = y if gamma is None else either("Mul", y, gamma)
    return y if beta is None else either("Add", y, beta)


VECTORS = st.sampled_from([(), (1,), (WIDTH,), (1, 1, WIDTH)])


@given(
    axis=st.sampled_from([-1, 2]),
    squared=st.sampled_from(["Pow", "Mul"]),
    quotient=st.sampled_from(["Div", "Reciprocal", "Power"]),
    centred_twice=st.booleans(),
    epsilon=st.sampled_from([1e-3, 1e-5, 1e-6, 1e-12]),
    gamma=st.none() | VECTORS,
    beta=st.none() | VECTORS,
    swapped=st.booleans(),
)
@FEW
def test_case_1_any_spelling_becomes_one_layer_normalization(
    gamma: tuple[int, ...] | None, beta: tuple[int, ...] | None, **spelling: Any
) -> None:
    draft = Draft(x=SHAPE)
    factor = None if gamma is None else weights(*gamma, seed=1)
    output = layer_norm(draft, "x", gamma=factor, beta=None if beta is None else weights(*beta, seed=2), **spelling)
    result, changed = rewrite(fuse_normalizations, draft.model(output), {"n": 3})
    assert op_types(result) == ["LayerNormalization"]
    assert changed[-1] == output
    epsilon = next(a.f for a in result.graph.node[0].attribute if a.name == "epsilon")
    assert epsilon == pytest.approx(spelling["epsilon"], rel=1e-6)


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17, 18, 20])
def test_case_1_axes_as_attribute_and_as_input(opset: int) -> None:
    draft = Draft(opset=opset, x=SHAPE)
    output = layer_norm(draft, "x", gamma=weights(WIDTH, seed=1), beta=weights(WIDTH, seed=2))
    model = draft.model(output)
    result, _ = rewrite(fuse_normalizations, to_canonical_opset(model), {"n": 2})
    assert op_types(result) == ["LayerNormalization"]
    assert_equal_outputs(model, result, random_feed(model))


def test_case_1_the_operator_takes_in_what_follows_it() -> None:
    draft = Draft(x=SHAPE)
    y = draft.add("LayerNormalization", "x", weights(WIDTH), weights(WIDTH, seed=1), axis=2, epsilon=1e-4)
    output = draft.add("Add", draft.add("Mul", y, weights(WIDTH, seed=2)), weights(WIDTH, seed=3))
    result, _ = rewrite(fuse_normalizations, draft.model(output))
    assert op_types(result) == ["LayerNormalization"]


@pytest.mark.parametrize(("width", "found"), [(2, False), (3, True), (4, True)])
def test_case_1_rows_of_three_are_wide_enough(width: int, found: bool) -> None:
    """Pixels of three colours are normalized as well; on half precision inputs the runtime refuses the spelled form."""
    draft = Draft(x=("n", width))
    output = layer_norm(draft, "x", gamma=weights(width), beta=weights(width, seed=1))
    result, _ = rewrite(fuse_normalizations, draft.model(output), {"n": 3})
    assert ("LayerNormalization" in op_types(result)) == found


def test_case_1_the_width_may_be_known_from_gamma_alone() -> None:
    draft = Draft(x=("n", "width"))
    output = layer_norm(draft, "x", gamma=weights(WIDTH), beta=weights(WIDTH, seed=1))
    result, _ = rewrite(fuse_normalizations, draft.model(output), {"n": 3, "width": WIDTH})
    assert op_types(result) == ["LayerNormalization"]


def test_case_1_flat_rows_keep_their_value() -> None:
    draft = Draft(x=(2, WIDTH))
    output = layer_norm(draft, "x", epsilon=1e-6, beta=weights(WIDTH))
    model = draft.model(output)
    result, _ = rewrite(fuse_normalizations, model)
    assert_equal_outputs(model, result, {"x": np.full((2, WIDTH), 7.0, np.float32)})


def softmax(draft: Draft, x: str, *, axis: int = -1, with_maximum: bool = True, quotient: str = "Div", added: float = 0.0) -> str:
    shifted = draft.add("Sub", x, reduced(draft, "ReduceMax", x, axis)) if with_maximum else x
    exponential = draft.add("Exp", shifted)
    total = reduced(draft, "ReduceSum", exponential, axis)
    total = draft.add("Add", total, added) if added else total
    return draft.add("Div", exponential, total) if quotient == "Div" else draft.add("Mul", exponential, draft.add("Reciprocal", total))


@pytest.mark.parametrize("axis", [-1, 2])
@pytest.mark.parametrize("with_maximum", [True, False])
@pytest.mark.parametrize("quotient", ["Div", "Reciprocal"])
@pytest.mark.parametrize("opset", [11, 20])
def test_case_2_softmax_with_and_without_maximum(axis: int, with_maximum: bool, quotient: str, opset: int) -> None:
    draft = Draft(opset=opset, x=("n", 5, "width"))
    output = softmax(draft, "x", axis=axis, with_maximum=with_maximum, quotient=quotient)
    model = to_canonical_opset(draft.model(output))
    result, changed = rewrite(fuse_normalizations, model, {"n": 2, "width": 7})
    assert op_types(result) == ["Softmax"]
    assert changed == [output]


def test_attention_scores_are_scaled_before_they_are_normalized() -> None:
    draft = Draft(x=("n", 5, 5))
    output = softmax(draft, draft.add("Mul", "x", 0.25))
    result, _ = rewrite(fuse_normalizations, draft.model(output))
    assert op_types(result) == ["Mul", "Softmax"]


@pytest.mark.parametrize("axis", [1, -3])
@pytest.mark.parametrize("affine", [True, False])
def test_over_channels_it_stands_between_transposes(axis: int, affine: bool) -> None:
    """LayerNorm of a map, as EdgeNeXt and ConvNeXt have it."""
    draft = Draft(x=("n", 6, 4, 3))
    constants: dict[str, Any] = {"gamma": weights(6, 1, 1), "beta": weights(6, 1, 1)} if affine else {}
    output = layer_norm(draft, "x", axis=axis, **constants)
    result, changed = rewrite(fuse_normalizations, draft.model(output))
    assert op_types(result) == ["Transpose", "LayerNormalization", "Transpose"]
    assert changed == [output]


def test_softmax_over_channels() -> None:
    draft = Draft(x=("n", 6, 4, 3))
    result, _ = rewrite(fuse_normalizations, draft.model(softmax(draft, "x", axis=1)))
    assert op_types(result) == ["Softmax"]


def test_a_factor_for_each_column_is_not_one_for_each_channel() -> None:
    draft = Draft(x=("n", 4, 4, 4))
    result, _ = rewrite(fuse_normalizations, draft.model(layer_norm(draft, "x", axis=1, gamma=weights(4))))
    assert op_types(result) == ["Transpose", "LayerNormalization", "Transpose", "Mul"]


# What has to be left alone.


def unchanged(draft: Draft, *outputs: str, sizes: dict[str, int] | None = None) -> None:
    result, changed = rewrite(fuse_normalizations, draft.model(*outputs), sizes)
    assert changed == []
    assert op_types(result) == [n.op_type for n in draft.nodes]


@pytest.mark.parametrize("spell", [layer_norm, softmax])
@pytest.mark.parametrize("axis", [0, 2, -2])
def test_another_axis_is_left_alone(spell: Callable[..., str], axis: int) -> None:
    draft = Draft(x=(4, 5, 6, 7))
    unchanged(draft, spell(draft, "x", axis=axis))


def test_two_axes_are_left_alone() -> None:
    draft = Draft(x=(2, 4, 6))
    centred = draft.add("Sub", "x", draft.add("ReduceMean", "x", np.asarray([1, 2], np.int64)))
    variance = draft.add("ReduceMean", draft.add("Mul", centred, centred), np.asarray([1, 2], np.int64))
    unchanged(draft, draft.add("Div", centred, draft.add("Sqrt", draft.add("Add", variance, 1e-5))))


@pytest.mark.parametrize("inside", range(6))
@pytest.mark.parametrize("how", ["output", "reader"])
def test_a_tensor_inside_that_is_seen_outside_is_left_alone(inside: int, how: str) -> None:
    draft = Draft(x=(2, 3, WIDTH))
    output = layer_norm(draft, "x")
    seen = draft.nodes[inside].output[0]
    unchanged(draft, output, seen if how == "output" else draft.add("Transpose", seen))


@pytest.mark.parametrize("inside", range(4))
def test_a_softmax_whose_inside_is_an_output_is_left_alone(inside: int) -> None:
    draft = Draft(x=(2, WIDTH))
    output = softmax(draft, "x")
    seen = draft.nodes[inside].output[0]
    result, _ = rewrite(fuse_normalizations, draft.model(output, seen))
    # where only the maximum or the difference is seen, a smaller softmax lies behind it
    begin = ["ReduceMax", "Sub"]
    assert op_types(result) == begin + (["Softmax"] if inside < 2 else ["Exp", "ReduceSum", "Div"])


def test_root_mean_square_normalization_is_another_function() -> None:
    draft = Draft(x=SHAPE)
    mean = reduced(draft, "ReduceMean", draft.add("Mul", "x", "x"))
    output = draft.add("Div", "x", draft.add("Sqrt", draft.add("Add", mean, 1e-5)))
    unchanged(draft, draft.add("Mul", output, weights(WIDTH)))


@pytest.mark.parametrize("epsilon", [1e-5, 1e-12])
def test_epsilon_outside_the_root_is_another_function(epsilon: float) -> None:
    """However small it is, it keeps flat rows from being divided by zero."""
    draft = Draft(x=SHAPE)
    centred = draft.add("Sub", "x", reduced(draft, "ReduceMean", "x"))
    deviation = draft.add("Sqrt", reduced(draft, "ReduceMean", draft.add("Mul", centred, centred)))
    unchanged(draft, draft.add("Div", centred, draft.add("Add", deviation, epsilon)))


@pytest.mark.parametrize("guard", [1e-5, 1e-8, 1e-12, 1e-20, 1e-30])
@pytest.mark.parametrize("limited", ["Clip", "Max"])
@pytest.mark.parametrize("what", ["variance", "deviation"])
def test_a_limit_in_place_of_epsilon_is_another_function(guard: float, limited: str, what: str) -> None:
    """Rows whose variance is near the limit come out otherwise, and flat rows without it are no numbers."""
    draft = Draft(x=SHAPE)
    centred = draft.add("Sub", "x", reduced(draft, "ReduceMean", "x"))
    variance = reduced(draft, "ReduceMean", draft.add("Mul", centred, centred))
    below = (
        draft.add("Sqrt", draft.add(limited, variance, guard))
        if what == "variance"
        else draft.add(limited, draft.add("Sqrt", variance), guard)
    )
    unchanged(draft, draft.add("Div", centred, below))


def test_a_limit_that_only_an_outlier_reaches_stays_behind_the_normalization() -> None:
    draft = Draft(x=("n", 5, 64))
    y = draft.add("Clip", layer_norm(draft, "x", gamma=weights(64)), -6.0, 6.0)
    result, _ = rewrite(fuse_normalizations, draft.model(y))
    assert op_types(result) == ["LayerNormalization", "Clip"]


@pytest.mark.parametrize("guard", [1e-6, 1e-8, 1e-12, 1e-30])
@pytest.mark.parametrize("op_type", ["Add", "Max", "Clip"])
def test_a_guard_behind_softmax_stays(guard: float, op_type: str) -> None:
    """It keeps the logarithm of a probability of zero finite."""
    draft = Draft(x=(2, WIDTH))
    result, _ = rewrite(fuse_normalizations, draft.model(draft.add("Log", draft.add(op_type, softmax(draft, "x"), guard))))
    assert op_types(result) == ["Softmax", op_type, "Log"]


@pytest.mark.parametrize("added", [1e-7, 1e-12, 1e-30])
def test_a_sum_with_something_added_is_no_softmax(added: float) -> None:
    draft = Draft(x=(2, WIDTH))
    unchanged(draft, softmax(draft, "x", with_maximum=False, added=added))


def test_an_offset_per_token_is_not_taken_in() -> None:
    draft = Draft(x=(1, 5, WIDTH))
    y = draft.add("LayerNormalization", "x", weights(WIDTH), axis=-1)
    unchanged(draft, draft.add("Add", y, weights(1, 5, WIDTH)))


def test_a_constant_that_broadcasts_to_a_larger_shape_is_not_taken_in() -> None:
    draft = Draft(x=(5, WIDTH))
    y = draft.add("LayerNormalization", "x", weights(WIDTH), axis=-1)
    unchanged(draft, draft.add("Add", y, weights(1, 1, WIDTH)))


def test_what_is_canonical_stays_as_it_is() -> None:
    draft = Draft(x=SHAPE)
    y = draft.add("LayerNormalization", "x", weights(WIDTH), weights(WIDTH, seed=1), axis=-1)
    unchanged(draft, draft.add("Softmax", y, axis=-1))


def test_gamma_and_beta_come_out_as_they_were() -> None:
    gamma, beta = weights(WIDTH, seed=1), weights(WIDTH, seed=2)
    gamma[3] = 0.0
    draft = Draft(x=SHAPE)
    result, _ = rewrite(fuse_normalizations, draft.model(layer_norm(draft, "x", gamma=gamma, beta=beta)))
    node = ir.from_proto(result).graph[0]
    for found, given_ in ((constant(node.inputs[1]), gamma), (constant(node.inputs[2]), beta)):
        assert found is not None
        np.testing.assert_allclose(found, given_, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("forgotten", ["x", "Relu_0_out", "Sub_2_out"])
def test_shapes_that_are_known_in_parts_are_no_obstacle(forgotten: str) -> None:
    """An axis counted from the front says nothing where the number of axes is not known."""
    draft = Draft(x=(2, 3, 5, WIDTH))
    model: ir.Model = ir.from_proto(draft.model(layer_norm(draft, draft.add("Relu", "x"), axis=3)))
    for value in (*model.graph.inputs, *(o for n in model.graph for o in n.outputs)):
        value.shape = None if value.name == forgotten else value.shape
    fuse_normalizations(model)
    complete = draft.model(str(model.graph.outputs[0].name))
    for value in model.graph.inputs:
        value.shape = ir.Shape((2, 3, 5, WIDTH))
    assert_equal_outputs(complete, ir.to_proto(model), random_feed(complete))
