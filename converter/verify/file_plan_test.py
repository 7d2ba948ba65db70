"""What a file costs, told from the file alone, against the plan that it was made of."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from converter.partition.cost_model import predict
from converter.targets import TARGETS
from converter.testing.sketch import Planned, Sketch, classifier, emitted, feeds_for, plan_for, shapes_of
from converter.verify.file_plan import file_costs


def tokens() -> ir.Model:
    """Rows that a linear layer, a normalization, a Gelu, a Softmax and a product of two tensors pass through."""
    s = Sketch(1)
    x = s.input("x", 1, 256, 64)
    wide = s.add("Gelu", s.add("MatMul", s.add("LayerNormalization", x, s.normal(64), s.normal(64)), s.normal(64, 96), name="widen"))
    scores = s.add("Softmax", s.add("MatMul", wide, s.add("Transpose", wide, perm=[0, 2, 1])))
    return s.model(s.add("Transpose", s.add("MatMul", scores, wide), perm=[0, 2, 1]))


def costs(planned: Planned, in_float: tuple[str, ...] = ()) -> dict[str, float]:
    return file_costs(emitted(planned), feeds_for(planned.model, 1)[0], planned.target, in_float)


def of_plan(planned: Planned) -> float:
    """Without what a clamp adds that became part of a layer: no node of the file is left of it."""
    found = predict(planned.model, planned.plan, planned.offers, shapes_of(planned.model), planned.target)
    return found.total - found.kinds.get("Relu integer", (0, 0.0))[1]


@pytest.mark.parametrize("target", ["arm64", "arm64-v8.0", "x86", "web"])
@pytest.mark.parametrize("integer", [None, (), ("second", "head")])
def test_a_file_costs_what_its_plan_does(target: str, integer: tuple[str, ...] | None) -> None:
    planned = plan_for(classifier(), target, integer=integer)
    assert costs(planned)[planned.target.unit] == pytest.approx(of_plan(planned), rel=1e-9)


@pytest.mark.parametrize("cheapest", [False, True])
def test_linear_layers_as_convolutions_are_known_again_and_a_gelu_costs_as_its_parts(cheapest: bool) -> None:
    planned = plan_for(tokens(), cheapest=cheapest)
    assert any(op.form == "linear_convolution" for op in planned.plan.ops.values()) or cheapest
    assert costs(planned)["instructions"] == pytest.approx(of_plan(planned), rel=0.1)


def test_a_stem_of_four_columns_costs_nearly_what_its_plan_does() -> None:
    """What brings the columns together is known to cost nothing of its own."""
    s = Sketch(2)
    x = s.add("Conv", s.input("x", 1, 3, 64, 64), s.normal(16, 3, 3, 3), s.normal(16), pads=(1, 1, 1, 1), strides=[2, 2])
    planned = plan_for(s.model(s.add("Sigmoid", x)))
    assert any(op.form == "column_convolution" for op in planned.plan.ops.values())
    assert costs(planned)["instructions"] == pytest.approx(of_plan(planned), rel=0.1)


def test_copies_in_fewer_bits_cost_what_they_are() -> None:
    planned = plan_for(classifier(), bits=(8, 6))
    clips = sum(node.op_type == "Clip" for node in emitted(planned).graph.node)
    assert clips and of_plan(planned) < costs(planned)["instructions"] < 1.5 * of_plan(planned), "the file also clips codes"


def test_what_is_known_to_run_in_float_costs_as_float() -> None:
    planned = plan_for(classifier())
    names = [node.name for node in emitted(planned).graph.node if node.op_type == "Conv"]
    assert len(names) == 2 and costs(planned, tuple(names))["instructions"] > costs(planned)["instructions"]


def test_every_unit_of_a_target_is_told() -> None:
    planned = plan_for(classifier())
    second = TARGETS["arm64"].second
    assert second is not None
    found = costs(planned)
    assert list(found) == ["instructions", "cycles"]
    assert found["cycles"] == pytest.approx(predict(planned.model, planned.plan, None, shapes_of(planned.model), second).total, rel=1e-3)


def test_integer_operators_in_the_file_itself_have_no_price() -> None:
    model = emitted(plan_for(classifier()))
    model.graph.node[0].CopyFrom(onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "b", "c"]))
    model.graph.node.append(onnx.helper.make_node("ConvInteger", ["a", "w"], ["y"]))
    assert file_costs(model, feeds_for(classifier(), 1)[0], TARGETS["arm64"]) == {}
