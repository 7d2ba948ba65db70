"""What operators cost, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx_ir as ir
import pytest

from converter.targets import TARGETS
from converter.targets.costs import convolution_features, features, form_costs, kind_of, operator_costs, price, step_features
from converter.targets.target import FEATURES, Cost, Target
from converter.testing.multiplying import MULTIPLYING
from converter.testing.sketch import Sketch


def only_node(model: ir.Model) -> tuple[ir.Node, dict[str, tuple[int, ...]]]:
    """The one node of a model, and the shapes of its tensors."""
    (node,) = model.graph
    values = [*model.graph.inputs, *node.outputs]
    return node, {str(v.name): tuple(int(d) for d in v.shape) for v in values if v.shape is not None}  # type: ignore[arg-type]


def conv(channels: int, outputs: int, *, size: int, group: int = 1, stride: int = 1) -> ir.Model:
    s = Sketch()
    x = s.input("x", 1, channels, 8, 8)
    made = s.conv(x, channels, size=size, group=group, outputs=outputs, strides=[stride] * 2)
    return s.model(made)


@pytest.mark.parametrize(
    ("kind", "model", "wanted"),
    [
        (
            "Conv",
            conv(16, 32, size=3),
            {"mac": 64 * 32 * 144, "column": 64 * 144, "column_row": 8 * 144, "run": 64 * 3, "element": 64 * 32},
        ),
        (
            "Conv",
            conv(64, 32, size=3, stride=2),
            {"mac": 16 * 32 * 576, "column": 16 * 576, "strided_column": 16 * 576, "column_row": 4 * 576, "run": 16 * 3, "input": 64 * 64},
        ),
        ("Conv", conv(3, 16, size=7), {"mac": 64 * 16 * 147, "column": 64 * 147, "column_row": 8 * 147, "run": 64 * 7}),
        ("Conv", conv(3, 24, size=3), {"mac": 64 * 24 * 27, "column": 64 * 27, "column_row": 8 * 27, "run": 64 * 3, "uneven16": 64 * 24}),
        ("PointwiseConv", conv(16, 36, size=1), {"mac": 64 * 36 * 16, "uneven8": 64 * 36, "uneven16": 64 * 36}),
        ("PointwiseConv", conv(16, 32, size=1, stride=2), {"column": 256, "strided_column": 256, "column_row": 64, "run": 16}),
        # three by three without a stride is not unfolded in float; any other is
        ("DepthwiseConv", conv(24, 24, size=3, group=24), {"mac": 64 * 24 * 9, "run": 64 * 9, "group": 24, "uneven16": 64 * 24 * 9}),
        (
            "DepthwiseConv",
            conv(32, 32, size=5, group=32),
            {"mac": 64 * 32 * 25, "column": 64 * 32 * 25, "column_row": 8 * 32 * 25, "run": 64 * 25, "group": 32},
        ),
        (
            "DepthwiseConv",
            conv(32, 32, size=3, group=32, stride=2),
            {"column": 16 * 32 * 9, "strided_column": 16 * 32 * 9, "column_row": 4 * 32 * 9, "run": 16 * 9, "group": 32},
        ),
        ("GroupedConv", conv(32, 32, size=3, group=2), {"mac": 64 * 32 * 144, "column": 64 * 288, "column_row": 8 * 288, "group": 2}),
    ],
)
def test_convolutions_by_hand(kind: str, model: ir.Model, wanted: dict[str, float]) -> None:
    """Of all amounts that only convolutions have, those are not zero that are wanted; a run means nothing for groups."""
    node, shapes = only_node(model)
    found = features(node, shapes)
    assert kind_of(node) == kind
    assert {feature: found.get(feature) for feature in wanted} == wanted
    assert set(found) - {"run"} == {"node", "element", "input", "row", "mac"} | wanted.keys() - {"run"}
    assert set(found) <= set(FEATURES)


def test_a_depthwise_convolution_with_a_wide_border_or_a_dilation_is_unfolded() -> None:
    """Counted on a Cortex-A76, with 64 channels and a side of 32: 2.4 and 2.2 M instead of 1.2."""
    plain = {"group": 8, "strides": [1, 1], "dilations": [1, 1], "pads": [1] * 4}
    assert convolution_features([1, 8, 4, 4], [8, 1, 3, 3], plain)["column"] == 0.0
    for other in ({"pads": [2] * 4}, {"dilations": [2, 2]}, {"strides": [1, 2]}):
        assert convolution_features([1, 8, 4, 4], [8, 1, 3, 3], plain | other)["column"] == 16 * 8 * 9


def test_what_the_windows_of_a_pooling_read_by_hand() -> None:
    s = Sketch()
    node, shapes = only_node(s.model(s.add("MaxPool", s.input("x", 1, 4, 8, 8), kernel_shape=[2, 3], strides=[2, 1])))
    assert features(node, shapes) == {"node": 1, "element": 4 * 4 * 6, "input": 256, "row": 16, "window": 4 * 4 * 6 * 6}


def test_products_by_hand() -> None:
    s = Sketch()
    node, shapes = only_node(s.model(s.add("MatMul", s.input("x", 2, 4, 10, 16), s.input("y", 2, 4, 16, 5))))
    assert kind_of(node) == "MatMul"
    assert features(node, shapes) == {
        "node": 1, "element": 400, "input": 1280 + 640, "row": 80, "mac": 6400, "matrix": 8, "operand": 640,
    }  # fmt: skip
    s = Sketch()
    node, shapes = only_node(s.model(s.add("MatMul", s.input("x", 3, 10, 16), s.normal(16, 5))))
    assert kind_of(node) == "Linear"
    assert features(node, shapes) == {"node": 1, "element": 150, "input": 480, "row": 30, "mac": 2400, "matrix": 1}
    s = Sketch()
    node, shapes = only_node(s.model(s.add("Gemm", s.input("x", 10, 16), s.normal(5, 16), transB=1)))
    assert (kind_of(node), features(node, shapes)["mac"]) == ("Linear", 800)


def test_products_that_have_no_integer_form_by_hand() -> None:
    """Weights of one matrix a head and constants on the left are read like any computed factor."""
    wanted = {
        "product with a matrix for each head": {"element": 30, "input": 24, "row": 6, "mac": 120, "matrix": 2, "operand": 40},
        "product with a constant on the left": {"element": 30, "input": 40, "row": 6, "mac": 120, "matrix": 2, "operand": 40},
        "einsum": {"element": 30, "input": 24 + 40, "row": 6, "mac": 120, "matrix": 2, "operand": 40},
    }
    for case, amounts in wanted.items():
        node, shapes = only_node(MULTIPLYING[case]()[0])
        assert kind_of(node) == ("Einsum" if node.op_type == "Einsum" else "MatMul")
        assert features(node, shapes) == {"node": 1, **amounts}, case
    node, shapes = only_node(MULTIPLYING["convolution with computed weights"]()[0])
    found = features(node, shapes)
    assert (kind_of(node), found["mac"], found["column"]) == ("Conv", 8 * 16 * 36, 16 * 36)
    node, shapes = only_node(MULTIPLYING["transposed, in groups"]()[0])
    assert (features(node, shapes)["mac"], features(node, shapes)["column"]) == (100 * 27, 25 * 6 * 9)
    node, shapes = only_node(MULTIPLYING["LSTM"]()[0])
    assert features(node, shapes) == {"node": 1, "element": 70, "input": 56, "row": 14, "mac": 7 * 2 * 20 * 9}


NEAREST = {
    "transposed convolution": "Conv",
    "deformable convolution": "Conv",
    "convolution with computed weights": "Conv",
    "einsum": "MatMul",
    "product with a matrix for each head": "MatMul",
    "product with a constant on the left": "MatMul",
    "LSTM": "Linear",
    "GRU both ways": "Linear",
    "RNN": "Linear",
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("case", NEAREST)
def test_what_multiplies_and_is_not_listed_costs_what_the_nearest_kind_would(case: str, target: Target) -> None:
    """Its products count, and not only the elements that it writes."""
    node, shapes = only_node(MULTIPLYING[case]()[0])
    found = features(node, shapes)
    cost, integer = operator_costs(node, shapes, target)
    assert cost == price(target.costs[NEAREST[case]].float, found) >= target.costs[NEAREST[case]].float["mac"] * found["mac"] > 0.0
    assert (integer is None) == (kind_of(node) not in ("Conv", "MatMul"))


def test_a_price_of_its_own_comes_first_and_without_products_there_is_no_nearest_kind() -> None:
    costs = {"MatMul": Cost({"mac": 2.0}, {"mac": 1.0})}
    target = replace(TARGETS["arm64"], costs=costs, other={"element": 3.0})
    assert form_costs("Linear", {"mac": 5.0, "element": 1.0}, target) == (10.0, None), "that of the other kind of product"
    assert form_costs("Einsum", {"element": 1.0}, target) == (3.0, None)
    assert form_costs("Conv", {"mac": 5.0, "element": 1.0}, target) == (3.0, None)
    assert form_costs("Einsum", {"mac": 5.0}, replace(target, costs=costs | {"Einsum": Cost({"mac": 7.0}, None)})) == (35.0, None)


@pytest.mark.parametrize(
    ("shape", "perm", "blocks"),
    [
        ((1, 64, 4, 16), (0, 2, 1, 3), 0),  # one axis moves past one other
        ((2, 8, 4, 16), (0, 2, 3, 1), 0),
        ((8, 4, 1, 16), (0, 2, 1, 3), 0),  # a reshape, as nothing moves but an axis of length 1
        ((6, 2, 4, 2), (0, 3, 2, 1), 96),  # every number by itself
        ((3, 4, 2, 5, 16), (1, 0, 3, 2, 4), 120),  # rows of 16
    ],
)
def test_pieces_that_a_transpose_moves(shape: tuple[int, ...], perm: tuple[int, ...], blocks: int) -> None:
    s = Sketch()
    node, shapes = only_node(s.model(s.add("Transpose", s.input("x", *shape), perm=list(perm))))
    assert features(node, shapes).get("block", 0) == blocks


@pytest.mark.parametrize(
    ("shape", "perm", "floats", "codes"),
    [
        ((1, 8, 1, 16), (0, 2, 1, 3), {}, {}),  # a view
        # heads in front of tokens: pieces of 64 and of 16 bytes, each copied by a call
        ((2, 5, 4, 16), (0, 2, 1, 3), {"piece": 40, "moved_piece": 40}, {"piece": 40, "moved_piece": 40}),
        ((2, 5, 4, 8), (0, 2, 1, 3), {"piece": 40, "moved_piece": 40}, {"moved_pair": 40}),
        # two matrices of 5 x 16: a row of 16 lies outside of blocks of 4 x 4, all outside of those of 8 x 8
        ((2, 5, 16), (0, 2, 1), {"moved": 160, "turned": 2, "rim": 32}, {"moved": 160, "turned": 2, "rim": 160}),
        ((1, 16, 8, 8), (0, 2, 3, 1), {"moved": 1024, "turned": 1}, {"moved": 1024, "turned": 1}),
        ((6, 2, 4, 2), (0, 3, 2, 1), {"single": 96}, {"single": 96}),
        ((3, 4, 2, 5, 16), (1, 0, 3, 2, 4), {"piece": 120}, {"piece": 120}),
    ],
)
def test_what_a_transpose_does_by_hand(
    shape: tuple[int, ...], perm: tuple[int, ...], floats: dict[str, float], codes: dict[str, float]
) -> None:
    always = {"node": 1, "element": math.prod(shape)}
    assert step_features(shape, perm) == always | floats
    assert step_features(shape, perm, 1) == always | codes
    assert set(floats) | set(codes) <= set(FEATURES)


def test_steps_price_a_transpose_where_a_target_knows_them() -> None:
    s = Sketch()
    node, shapes = only_node(s.model(s.add("Transpose", s.input("x", 2, 5, 4, 16), perm=[0, 2, 1, 3])))
    coarse, steps = {"Transpose": Cost({"element": 1.0}, {"element": 0.5})}, Cost({"piece": 10.0}, {"piece": 7.0})
    target = replace(TARGETS["arm64"], costs=coarse)
    assert operator_costs(node, shapes, target) == (640.0, 320.0)
    assert operator_costs(node, shapes, replace(target, costs=coarse | {"TransposeStep": steps})) == (400.0, 280.0)
    floats_only = replace(target, costs=coarse | {"TransposeStep": replace(steps, integer=None)})
    assert operator_costs(node, shapes, floats_only) == (640.0, 320.0)


def test_prices_times_amounts() -> None:
    s = Sketch()
    node, shapes = only_node(s.model(s.add("Sigmoid", s.input("x", 4, 25))))
    costs = {"Sigmoid": Cost({"node": 1000.0, "element": 8.0}, {"element": 4.0, "row": 2.0})}
    target = replace(TARGETS["arm64"], costs=costs, other={"element": 3.0})
    assert operator_costs(node, shapes, target) == (1800.0, 408.0)
    assert form_costs("Erf", features(node, shapes), target) == (300.0, None), "what is not listed runs in float"
    assert operator_costs(node, {}, target) == (1000.0, 0.0), "unknown shapes count nothing"
