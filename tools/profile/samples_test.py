"""What an operator is found to cost, from made-up costs of the nodes around it, and from the runtime's own profile."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.targets import TARGETS
from converter.targets.costs import PIECEWISE_LINEAR_KIND, Shapes
from tools.profile.clock import clocked_nodes, prepared
from tools.profile.probes import Probe, feeds, integers, probe_model, seen_in
from tools.profile.samples import Sample, Timed, conversion_samples, is_layout, operator_samples

GEMM = Probe("Gemm", ((4, 8),), ((8, 16), (16,)))
GEMM_FEATURES = {"node": 1.0, "element": 64.0, "input": 32.0, "row": 4.0, "mac": 512.0, "matrix": 1.0}
SIGMOID = Probe("Sigmoid", ((2, 3, 5),))
SIGMOID_FEATURES = {"node": 1.0, "element": 30.0, "input": 30.0, "row": 6.0}
CONV = Probe("Conv", ((1, 8, 4, 4),), ((8, 8, 1, 1), (8,)))
CLAMPED = replace(CONV, behind="Relu")


def probed(*given: Probe) -> tuple[ir.Model, Shapes]:
    model = probe_model(given)
    return model, {name: stats.shape for name, stats in seen_in(model).tensors.items()}


def node(branch: int, op_type: str, cost: float | None, name: str = "") -> Timed:
    return Timed(f"p{branch:04}", op_type, name, "float32[1]", cost)


def test_an_operator_costs_the_sum_of_its_nodes() -> None:
    """The runtime may spell an operator as several, in any order among those of other branches."""
    nodes = [node(0, "MatMul", 100.0), node(1, "Exp", 7.0), node(0, "Add", 20.0), node(1, "Div", 3.0)]
    assert operator_samples(nodes, *probed(GEMM, SIGMOID)) == [
        Sample("Linear", GEMM_FEATURES, 120.0),
        Sample("Sigmoid", SIGMOID_FEATURES, 10.0),
    ]


def test_conversions_and_changes_of_layout_around_it_do_not_count() -> None:
    around = [
        node(0, "QuantizeLinear", 1e3),
        node(0, "DequantizeLinear", 1e3),
        node(0, "ReorderInput", 1e3),
        node(0, "ReorderOutput", 1e3),
        node(0, "Transpose", 1e3, "Transpose_token_3"),
        node(0, "QLinearSigmoid", 4.0),
    ]
    assert [sample.cost for sample in operator_samples(around, *probed(SIGMOID))] == [4.0]


@pytest.mark.parametrize(
    ("op_type", "name", "layout"),
    [
        ("ReorderInput", "anything", True),
        ("ReorderOutput", "", True),
        ("Transpose", "Transpose", True),
        ("Transpose", "Transpose_token_7", True),
        ("Transpose", "p0012", False),
        ("Reshape", "Reshape_token_7", False),
    ],
)
def test_layout_is_what_the_runtime_put_in(op_type: str, name: str, layout: bool) -> None:
    assert is_layout(op_type, name) is layout


def test_an_operator_of_which_a_node_was_not_measured_is_left_out() -> None:
    nodes = [node(0, "MatMul", 100.0), node(0, "Add", None), node(0, "Mul", 5.0), node(1, "Sigmoid", 7.0)]
    assert [sample.kind for sample in operator_samples(nodes, *probed(GEMM, SIGMOID))] == ["Sigmoid"]


def test_an_operator_that_the_runtime_removed_costs_nothing() -> None:
    flat = Probe("Flatten", ((1, 2, 3),))
    assert operator_samples([], *probed(flat)) == [Sample("Flatten", {"node": 1.0, "element": 6.0, "input": 6.0, "row": 1.0}, 0.0)]


def test_only_what_is_offered_counts_in_integer() -> None:
    nodes = [node(0, "Gemm", 9.0), node(1, "QLinearSigmoid", 7.0)]
    assert [sample.kind for sample in operator_samples(nodes, *probed(GEMM, SIGMOID), {"p0001"})] == ["Sigmoid"]


@pytest.mark.parametrize(("together", "added"), [(130.0, 30.0), (90.0, 0.0)])
def test_a_clamp_costs_what_it_adds_to_its_layer(together: float, added: float) -> None:
    """Never less than nothing, as a measurement may say of a clamp that is part of the layer."""
    nodes = [node(0, "Conv", 100.0), node(1, "FusedConv", together)]
    layer, clamp = operator_samples(nodes, *probed(CONV, CLAMPED))
    assert (layer.kind, layer.cost) == ("PointwiseConv", 100.0)
    assert (clamp.kind, clamp.features["element"], clamp.cost) == ("Relu", 128.0, added)


def test_a_clamp_behind_nothing_is_what_a_piecewise_linear_sigmoid_is() -> None:
    (clamp,) = operator_samples([node(0, "Clip", 9.0)], *probed(Probe("Relu", ((2, 3, 5),))))
    assert (clamp.kind, clamp.features["element"], clamp.cost) == (PIECEWISE_LINEAR_KIND, 30.0, 9.0)


def test_a_clamp_whose_layer_is_not_known_alone_is_left_out() -> None:
    larger = replace(CONV, shapes=((1, 8, 5, 5),))
    nodes = [node(0, "Conv", 100.0), node(1, "FusedConv", 130.0)]
    assert [sample.kind for sample in operator_samples(nodes, *probed(larger, CLAMPED))] == ["PointwiseConv"]


@given(st.lists(st.integers(1, 99), max_size=5), st.floats(0.0, 1e9), st.sampled_from(["QuantizeLinear", "DequantizeLinear"]))
def test_a_conversion_counts_by_its_elements(shape: list[int], cost: float, op_type: str) -> None:
    measured = Timed("", op_type, "", f"uint8{shape}", cost)
    nodes = [measured, replace(measured, op_type="Conv"), replace(measured, cost=None)]
    assert conversion_samples(nodes) == [Sample(op_type, {"node": 1.0, "element": float(math.prod(shape))}, cost)]


def test_the_clock_gives_a_sample_for_each_probe_and_form() -> None:
    model, shapes = probed(SIGMOID)
    proto, offered = integers(model, seen_in(model), TARGETS["x86"])
    visits: list[tuple[int, int]] = []
    pair = [prepared(each, feeds(model), {}) for each in (ir.to_proto(model), proto)]
    ((in_float, in_integer),) = clocked_nodes([pair], runs=1, rounds=2, progress=lambda done, total: visits.append((done, total)))
    assert visits == [(1, 2), (2, 2)]
    assert [(n.branch, n.op_type, n.result) for n in in_float] == [("p0000", "Sigmoid", "float[2, 3, 5]")]
    assert [(n.branch, n.op_type, n.result) for n in in_integer] == [
        ("p0000", "QuantizeLinear", "uint8[2, 3, 5]"),
        ("p0000", "QLinearSigmoid", "uint8[2, 3, 5]"),
        ("p0000", "DequantizeLinear", "float[2, 3, 5]"),
    ]
    for nodes, chosen in ((in_float, None), (in_integer, offered)):
        assert [(s.kind, s.features) for s in operator_samples(nodes, model, shapes, chosen)] == [("Sigmoid", SIGMOID_FEATURES)]
    assert {s.kind: s.features["element"] for s in conversion_samples(in_integer)} == {"QuantizeLinear": 30.0, "DequantizeLinear": 30.0}
