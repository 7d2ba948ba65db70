"""What operators cost, by hand."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
import pytest

from converter.costs import features, form_costs, kind_of, operator_costs
from converter.machine import FEATURES, Cost
from converter.sketch_test import Sketch
from converter.targets import TARGETS


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
        ("Conv", conv(16, 32, size=3), {"mac": 64 * 32 * 144, "column": 64 * 144, "narrow_column": 64 * 144, "element": 64 * 32}),
        ("Conv", conv(64, 32, size=3, stride=2), {"mac": 16 * 32 * 576, "column": 16 * 576, "input": 64 * 64}),
        ("PointwiseConv", conv(16, 36, size=1), {"mac": 64 * 36 * 16, "uneven8": 64 * 36, "uneven16": 64 * 36}),
        ("DepthwiseConv", conv(24, 24, size=3, group=24), {"mac": 64 * 24 * 9, "column": 64 * 24 * 9, "uneven16": 64 * 24}),
        ("GroupedConv", conv(32, 32, size=3, group=2), {"mac": 64 * 32 * 144, "column": 64 * 288}),
    ],
)
def test_convolutions_by_hand(kind: str, model: ir.Model, wanted: dict[str, float]) -> None:
    node, shapes = only_node(model)
    found = features(node, shapes)
    assert kind_of(node) == kind
    assert {feature: found.get(feature) for feature in wanted} == wanted
    present = {"node", "element", "input", "row", "mac"} | {f for f in found if f in wanted or f.endswith(("column", "8", "16"))}
    assert set(found) == present <= set(FEATURES)
    if kind == "PointwiseConv":
        assert "column" not in found
    if shapes["x"][1] >= 64:
        assert "narrow_column" not in found


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


def test_prices_times_amounts() -> None:
    s = Sketch()
    node, shapes = only_node(s.model(s.add("Sigmoid", s.input("x", 4, 25))))
    costs = {"Sigmoid": Cost({"node": 1000.0, "element": 8.0}, {"element": 4.0, "row": 2.0})}
    target = replace(TARGETS["arm64"], costs=costs, other={"element": 3.0})
    assert operator_costs(node, shapes, target) == (1800.0, 408.0)
    assert form_costs("Erf", features(node, shapes), target) == (300.0, None), "what is not listed runs in float"
    assert operator_costs(node, {}, target) == (1000.0, 0.0), "unknown shapes count nothing"
