from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.canonicalise.folding.affine import fold_affine
from converter.testing.rewrites import Array, Draft, Operand, assert_equal_outputs, op_types, outputs_of, random_feed, rewrite, weights

FEW = settings(max_examples=150, deadline=None, derandomize=True)
CHANNELS = 4
IMAGE = (2, CHANNELS, 6, 6)


def conv(draft: Draft, x: str, *, bias: bool = True, group: int = 1, **attrs: Any) -> str:
    rest = [weights(8, seed=9)] if bias else []
    return draft.add("Conv", x, weights(8, CHANNELS // group, 3, 3), *rest, group=group, **attrs)


def conv_transpose(draft: Draft, x: str, *, bias: bool = True, group: int = 1, **attrs: Any) -> str:
    rest = [weights(8, seed=9)] if bias else []
    return draft.add("ConvTranspose", x, weights(CHANNELS, 8 // group, 3, 3), *rest, group=group, **attrs)


def gemm(draft: Draft, x: str, *, bias: tuple[int, ...] | None = (8,), **attrs: Any) -> str:
    weight = weights(8, CHANNELS) if attrs.get("transB") else weights(CHANNELS, 8)
    return draft.add("Gemm", x, weight, *([] if bias is None else [weights(*bias, seed=9)]), **attrs)


def batch_norm(draft: Draft, x: str, channels: int) -> str:
    vectors = [weights(channels, seed=s) for s in (1, 2, 3)]
    return draft.add("BatchNormalization", x, *vectors, weights(channels, seed=4, low=0.5, high=2.0), epsilon=1e-3)


def folded(draft: Draft, output: str) -> list[str]:
    result, changed = rewrite(fold_affine, draft.model(output))
    assert bool(changed) == (op_types(result) != [n.op_type for n in draft.nodes])
    return op_types(result)


# Case 1: one way to write it.


@pytest.mark.parametrize("shape", [(3, CHANNELS), (2, CHANNELS, 5), IMAGE])
def test_case_1_batch_norm_alone_becomes_factor_and_offset(shape: tuple[int, ...]) -> None:
    draft = Draft(x=shape)
    assert folded(draft, draft.add("Relu", batch_norm(draft, draft.add("Relu", "x"), CHANNELS))) == ["Relu", "Mul", "Add", "Relu"]


def test_case_1_quotient_and_difference_become_factor_and_offset() -> None:
    draft = Draft(x=("n", 3))
    assert folded(draft, draft.add("Relu", draft.add("Div", "x", weights(3)))) == ["Mul", "Relu"]
    draft = Draft(x=("n", 3))
    assert folded(draft, draft.add("Relu", draft.add("Sub", "x", 2.5))) == ["Add", "Relu"]


def test_case_1_what_a_constant_is_divided_by_stays() -> None:
    draft = Draft(x=("n", 3))
    assert folded(draft, draft.add("Sub", 1.0, draft.add("Div", 1.0, "x"))) == ["Div", "Sub"]


def test_case_1_division_by_zero_stays() -> None:
    draft = Draft(x=(1, 2))
    assert [n.op_type for n in rewritten_nodes(draft, draft.add("Div", "x", np.asarray([0.0, 1.0])))] == ["Div"]


def test_case_1_the_inverse_has_to_be_a_number() -> None:
    draft = Draft(x=(1, 2))
    assert [n.op_type for n in rewritten_nodes(draft, draft.add("Div", "x", np.asarray([1e-42, 1.0])))] == ["Div"]


def rewritten_nodes(draft: Draft, output: str) -> list[Any]:
    """Nodes after the rewrite, of a graph whose outputs may be infinite."""
    model = ir.from_proto(draft.model(output))
    fold_affine(model)
    return list(model.graph)


# Case 2: two in a row.


@pytest.mark.parametrize(("op_type", "first", "second"), [("Mul", 3.0, 0.5), ("Add", 3.0, -1.0)])
def test_case_2_two_become_one(op_type: str, first: float, second: float) -> None:
    draft = Draft(x=("n", 3))
    output = draft.add(op_type, second, draft.add(op_type, "x", first))
    result, _ = rewrite(fold_affine, draft.model(output))
    assert op_types(result) == [op_type]
    assert list(result.graph.node[0].output) == [output]


def test_case_2_a_constant_does_not_grow() -> None:
    draft = Draft(x=(1, 2, 8, 8))
    assert folded(draft, draft.add("Mul", draft.add("Mul", "x", weights(1, 1, 8, 1)), weights(1, 1, 1, 8))) == ["Mul", "Mul"]


def test_case_2_a_product_beyond_float32_is_not_formed() -> None:
    draft = Draft(x=("n", 3))
    assert [n.op_type for n in rewritten_nodes(draft, draft.add("Mul", draft.add("Mul", "x", 1e30), 1e30))] == ["Mul", "Mul"]


# Case 3: behind a layer.

LAYERS: dict[str, tuple[tuple[int, ...], Callable[[Draft, str], str], str, tuple[int, ...]]] = {
    "Conv": (IMAGE, lambda d, x: conv(d, x, pads=[1, 1, 1, 1]), "Conv", (8, 1, 1)),
    "Conv without bias": (IMAGE, lambda d, x: conv(d, x, bias=False), "Conv", (1, 8, 1, 1)),
    "grouped Conv": (IMAGE, lambda d, x: conv(d, x, group=2), "Conv", (8, 1, 1)),
    "depthwise Conv": (IMAGE, lambda d, x: conv(d, x, group=4, strides=[2, 2]), "Conv", (8, 1, 1)),
    "ConvTranspose": (IMAGE, lambda d, x: conv_transpose(d, x, strides=[2, 2]), "ConvTranspose", (8, 1, 1)),
    "grouped ConvTranspose": (IMAGE, lambda d, x: conv_transpose(d, x, bias=False, group=2), "ConvTranspose", (8, 1, 1)),
    "Gemm": ((3, CHANNELS), gemm, "Gemm", (8,)),
    "Gemm without bias": ((3, CHANNELS), lambda d, x: gemm(d, x, bias=None, transB=1), "Gemm", (1, 8)),
    "Gemm with a number for bias": ((3, CHANNELS), lambda d, x: gemm(d, x, bias=()), "Gemm", (8,)),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("op_type", ["Mul", "Add", "Div", "Sub"])
@pytest.mark.parametrize("size", ["number", "channels"])
def test_case_3_goes_into_weights_and_bias(layer: str, op_type: str, size: str) -> None:
    shape, append, expected, channels = LAYERS[layer]
    draft = Draft(x=shape)
    operand: Array | float = 1.7 if size == "number" else weights(*channels, seed=5)
    y = append(draft, "x")
    output = draft.add(op_type, y, operand)
    result, _ = rewrite(fold_affine, draft.model(output))
    assert op_types(result) == [expected]
    assert list(result.graph.node[0].output) == [output]


@pytest.mark.parametrize("layer", LAYERS)
def test_case_3_batch_norm_goes_into_the_layer_in_front(layer: str) -> None:
    shape, append, expected, _ = LAYERS[layer]
    draft = Draft(x=shape)
    assert folded(draft, batch_norm(draft, append(draft, "x"), 8)) == [expected]


def test_case_3_factor_across_the_bias_of_a_matmul() -> None:
    draft = Draft(x=(2, 5, CHANNELS))
    y = draft.add("Add", weights(8, seed=1), draft.add("MatMul", "x", weights(CHANNELS, 8)))
    assert folded(draft, draft.add("Mul", y, weights(8, seed=2))) == ["MatMul", "Add"]


def test_case_3_a_matmul_has_no_bias() -> None:
    draft = Draft(x=(2, 5, CHANNELS))
    assert folded(draft, draft.add("Add", draft.add("MatMul", "x", weights(CHANNELS, 8)), weights(8))) == ["MatMul", "Add"]


@pytest.mark.parametrize(
    "operand",
    [weights(1, 1, 4, 4), weights(2, 1, 1, 1), weights(1, 8, 4, 4), weights(4), weights(1, 1, 8, 1, 1)],
    ids=lambda a: str(a.shape),
)
@pytest.mark.parametrize("op_type", ["Mul", "Add"])
def test_case_3_other_shapes_stay(op_type: str, operand: Array) -> None:
    draft = Draft(x=IMAGE)
    assert folded(draft, draft.add(op_type, conv(draft, "x"), operand)) == ["Conv", op_type]


def test_case_3_a_single_channel_is_not_multiplied() -> None:
    draft = Draft(x=(1, 1, 4, 4))
    y = draft.add("Conv", "x", weights(1, 1, 1, 1))
    assert folded(draft, draft.add("Mul", y, weights(1, 4, 1, 1))) == ["Conv", "Mul"]


def test_case_3_a_bias_that_differs_between_rows_stays() -> None:
    for bias in ((8, 1), (8, 8)):
        draft = Draft(x=(8, CHANNELS))
        assert folded(draft, draft.add("Mul", gemm(draft, "x", bias=bias), weights(8))) == ["Gemm", "Mul"]


def test_case_3_product_with_a_vector_has_no_channels() -> None:
    draft = Draft(x=(5, 5))
    assert folded(draft, draft.add("Mul", draft.add("MatMul", "x", weights(5)), weights(5))) == ["MatMul", "Mul"]


@pytest.mark.parametrize("how", ["output", "reader"])
def test_case_3_a_layer_that_others_read_stays(how: str) -> None:
    draft = Draft(x=IMAGE)
    y = conv(draft, "x")
    output = draft.add("Mul", y, 2.0)
    result, changed = rewrite(fold_affine, draft.model(output, y if how == "output" else draft.add("Relu", y)))
    assert changed == []
    assert op_types(result)[:2] == ["Conv", "Mul"]


def test_case_3_weights_that_others_use_stay_as_they_are() -> None:
    draft = Draft(x=IMAGE)
    shared = draft.constant(weights(8, CHANNELS, 3, 3))
    scaled = draft.add("Mul", draft.add("Conv", "x", shared), 2.0)
    assert folded(draft, draft.add("Sub", scaled, draft.add("Conv", "x", shared))) == ["Conv", "Conv", "Sub"]


def test_case_3_weights_beyond_float32_are_not_formed() -> None:
    draft = Draft(x=IMAGE)
    y = draft.add("Conv", "x", 1e20 * np.ones((8, CHANNELS, 1, 1)))
    assert [n.op_type for n in rewritten_nodes(draft, draft.add("Mul", y, 1e20))] == ["Conv", "Mul"]


# Case 4: in front of a layer.

FRONT: dict[str, tuple[tuple[int, ...], Callable[[Draft, str], str], str, tuple[int, ...]]] = {
    "Conv": (IMAGE, conv, "Conv", (CHANNELS, 1, 1)),
    "grouped Conv": (IMAGE, lambda d, x: conv(d, x, group=2, auto_pad="VALID"), "Conv", (1, CHANNELS, 1, 1)),
    "depthwise Conv": (IMAGE, lambda d, x: conv(d, x, group=4, bias=False), "Conv", (CHANNELS, 1, 1)),
    "Gemm": ((3, CHANNELS), gemm, "Gemm", (CHANNELS,)),
    "transposed Gemm": ((3, CHANNELS), lambda d, x: gemm(d, x, transB=1), "Gemm", (1, CHANNELS)),
    "MatMul": ((2, 5, CHANNELS), lambda d, x: d.add("MatMul", x, weights(CHANNELS, 8)), "MatMul", (CHANNELS,)),
    "ConvTranspose": (IMAGE, lambda d, x: conv_transpose(d, x, group=2, pads=[1, 1, 1, 1]), "ConvTranspose", (CHANNELS, 1, 1)),
}


@pytest.mark.parametrize("layer", FRONT)
@pytest.mark.parametrize("size", ["number", "channels"])
def test_case_4_a_factor_goes_into_the_weights(layer: str, size: str) -> None:
    shape, append, expected, channels = FRONT[layer]
    draft = Draft(x=shape)
    operand: Array | float = 1.7 if size == "number" else weights(*channels, seed=5)
    assert folded(draft, append(draft, draft.add("Mul", "x", operand))) == [expected]


@pytest.mark.parametrize("layer", ["Conv", "grouped Conv", "depthwise Conv", "Gemm", "transposed Gemm"])
@pytest.mark.parametrize("size", ["number", "channels"])
def test_case_4_an_offset_goes_into_the_bias(layer: str, size: str) -> None:
    shape, append, expected, channels = FRONT[layer]
    draft = Draft(x=shape)
    operand: Array | float = 1.7 if size == "number" else weights(*channels, seed=5)
    assert folded(draft, append(draft, draft.add("Add", "x", operand))) == [expected]


@pytest.mark.parametrize("attrs", [{"pads": [0, 1, 0, 0]}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}], ids=str)
def test_case_4_an_offset_stays_in_front_of_a_border(attrs: dict[str, Any]) -> None:
    draft = Draft(x=IMAGE)
    assert folded(draft, conv(draft, draft.add("Add", "x", 2.0), **attrs)) == ["Add", "Conv"]


def test_case_4_an_offset_stays_where_there_is_no_bias() -> None:
    for layer in ("MatMul", "ConvTranspose"):
        shape, append, expected, _ = FRONT[layer]
        draft = Draft(x=shape)
        assert folded(draft, append(draft, draft.add("Add", "x", 2.0))) == ["Add", expected]


@pytest.mark.parametrize("op_type", ["Mul", "Add"])
@pytest.mark.parametrize(
    ("shape", "operand"),
    [
        ((2, 1, 6, 6), weights(1, CHANNELS, 1, 1)),
        ((CHANNELS, 6, 6), weights(1, CHANNELS, 6, 6)),
        ((CHANNELS, 6, 6), weights(1, CHANNELS, 1, 1)),
        (IMAGE, weights(1, 1, 6, 6)),
        (IMAGE, weights(2, 1, 1, 1)),
        ((2, CHANNELS, 1, 6), weights(1, 1, 6, 1)),
    ],
    ids=lambda v: str(v.shape if isinstance(v, np.ndarray) else v),
)
def test_case_4_shapes_that_broadcast_or_vary_in_space_stay(op_type: str, shape: tuple[int, ...], operand: Array) -> None:
    draft = Draft(x=shape)
    assert folded(draft, conv(draft, draft.add(op_type, "x", operand))) == [op_type, "Conv"]


def test_case_4_what_two_layers_read_stays() -> None:
    draft = Draft(x=IMAGE)
    scaled = draft.add("Mul", "x", 2.0)
    assert folded(draft, draft.add("Sub", conv(draft, scaled), conv(draft, scaled, bias=False))) == ["Mul", "Conv", "Conv", "Sub"]


# Case 5: a factor passes an offset.


def test_case_5_the_factor_passes_the_offset_into_a_padded_convolution() -> None:
    draft = Draft(x=IMAGE)
    assert folded(draft, conv(draft, batch_norm(draft, "x", CHANNELS), pads=[1, 1, 1, 1])) == ["Add", "Conv"]


def test_case_5_not_if_a_factor_is_zero() -> None:
    draft = Draft(x=IMAGE)
    factor = weights(CHANNELS, 1, 1)
    factor[2] = 0.0
    y = draft.add("Add", draft.add("Mul", "x", factor), weights(CHANNELS, 1, 1, seed=1))
    assert folded(draft, conv(draft, y, pads=[1, 1, 1, 1])) == ["Mul", "Add", "Conv"]


def test_case_5_not_if_the_scaled_tensor_is_read_elsewhere() -> None:
    draft = Draft(x=IMAGE)
    scaled = draft.add("Mul", "x", 2.0)
    y = conv(draft, draft.add("Add", scaled, 1.0), pads=[1, 1, 1, 1])
    result, changed = rewrite(fold_affine, draft.model(y, draft.add("Relu", scaled)))
    assert changed == []
    assert op_types(result) == ["Mul", "Add", "Conv", "Relu"]


def test_case_5_not_if_the_factor_could_not_go_on() -> None:
    draft = Draft(x=IMAGE)
    y = draft.add("Add", draft.add("Mul", "x", weights(1, 1, 6, 6)), 1.0)
    assert folded(draft, conv(draft, y, pads=[1, 1, 1, 1])) == ["Mul", "Add", "Conv"]


# Everything together, on random chains.

OPERANDS_IN_IMAGES = st.sampled_from([(), (1,), ("c", 1, 1), (1, "c", 1, 1), (6, 1), (1, 1, 1, 6), (2, 1, 1, 1), (1, "c", 6, 6)])
OPERANDS_IN_ROWS = st.sampled_from([(), (1,), ("c",), (1, "c"), (3, 1), (1, 1), (3, "c"), (1, 3, 1)])
OPERATORS = st.sampled_from(["Mul", "Add", "Div", "Sub"])


def chain(data: st.DataObject, draft: Draft, x: str, channels: int, shapes: st.SearchStrategy[Any]) -> str:
    """Up to three affine operators with operands of any shape that broadcasts."""
    for seed in range(data.draw(st.integers(0, 3))):
        shape = tuple(channels if n == "c" else n for n in data.draw(shapes))
        operands: list[Operand] = [x, weights(*shape, seed=seed)]
        op_type = data.draw(OPERATORS)
        if op_type in ("Mul", "Add") and data.draw(st.booleans()):
            operands.reverse()
        x = draft.add(op_type, *operands)
    return x


@given(data=st.data())
@FEW
def test_random_chains_around_convolutions_compute_the_same(data: st.DataObject) -> None:
    draft = Draft(x=(2, data.draw(st.sampled_from([1, CHANNELS])), 6, 6))
    x = chain(data, draft, "x", CHANNELS, OPERANDS_IN_IMAGES)
    # operands need not reach the channels that the layer wants
    x = (
        draft.add("Expand", x, np.asarray([1, CHANNELS, 1, 1]))
        if data.draw(st.booleans())
        else draft.add("Add", x, weights(1, CHANNELS, 1, 1))
    )
    attrs: dict[str, Any] = {
        "group": data.draw(st.sampled_from([1, 2, 4])),
        "bias": data.draw(st.booleans()),
        "strides": data.draw(st.sampled_from([[1, 1], [2, 1]])),
        "pads": data.draw(st.sampled_from([[1, 1, 1, 1], [1, 0, 1, 2], [0, 0, 0, 0]])),
    }
    y = data.draw(st.sampled_from([conv, conv_transpose]))(draft, x, **attrs)
    y = batch_norm(draft, y, 8) if data.draw(st.booleans()) else y
    height, width = outputs_of(model := draft.model(y), random_feed(model))[y].shape[2:]
    after = st.sampled_from([(), (8, 1, 1), (1, 8, 1, 1), (1, 1, height, 1), (1, 1, 1, width), (2, 1, 1, 1), (1, 2, 1, 1, 1)])
    y = chain(data, draft, y, 8, after)
    result, _ = rewrite(fold_affine, draft.model(y))
    assert not {"BatchNormalization", "Div", "Sub"} & set(op_types(result))


@given(data=st.data())
@FEW
def test_random_chains_around_matrix_products_compute_the_same(data: st.DataObject) -> None:
    draft = Draft(x=(3, CHANNELS))
    x = chain(data, draft, "x", CHANNELS, OPERANDS_IN_ROWS)
    kind = data.draw(st.sampled_from(["MatMul", "batched MatMul", "Gemm"]))
    if kind == "Gemm":
        x = draft.add("Reshape", x, np.asarray([-1, CHANNELS]))
        y = gemm(draft, x, bias=data.draw(st.sampled_from([None, (), (8,), (1, 8), (3, 1), (3, 8)])), transB=data.draw(st.integers(0, 1)))
    else:
        y = draft.add("MatMul", x, weights(CHANNELS, 8) if kind == "MatMul" else weights(3, CHANNELS, 8))
    rewrite(fold_affine, draft.model(chain(data, draft, y, 8, OPERANDS_IN_ROWS)))


def test_a_fixed_point_is_reached() -> None:
    draft = Draft(x=IMAGE)
    y = batch_norm(draft, conv(draft, batch_norm(draft, "x", CHANNELS), pads=[1, 1, 1, 1]), 8)
    once, _ = rewrite(fold_affine, draft.model(y))
    twice, changed = rewrite(fold_affine, once)
    assert changed == []
    assert_equal_outputs(once, twice, random_feed(once))
