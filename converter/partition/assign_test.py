from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.calibration.observer import CalibrationStatistics, TensorStats
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.graph.queries import consumers
from converter.partition.assign import cut, place
from converter.partition.cost_model import predict
from converter.partition.policy import LATENCY, Placement, parse_placement
from converter.plan.choice import Choice
from converter.plan.records import Plan
from converter.quantization.bit_widths import BitWidths
from converter.quantization.parameters import QuantParams
from converter.testing.assignments import TARGET, cost_of
from converter.testing.sketch import Planned, Sketch, emitted, parity, plan_for
from converter.transforms.sigmoids.piecewise_linear import PiecewiseLinear

NOTHING: Mapping[str, Any] = MappingProxyType({})


# The minimum cut against all assignments, with whole numbers as costs


@st.composite
def placements(draw: st.DrawFn) -> tuple[ir.Model, dict[str, SupportedForm | UnsupportedForm], CalibrationStatistics]:
    """A random graph of up to seven operators with random offers and costs."""
    sketch = Sketch()
    tensors = [sketch.input("x", 1)]
    offers: dict[str, SupportedForm | UnsupportedForm] = {}
    for i in range(draw(st.integers(1, 7))):
        name = f"op{i}"
        if draw(st.integers(0, 3)) == 0:
            source = draw(st.sampled_from(tensors))
            made = sketch.add("Relu", source, name=name)
            producer = next((n for n in sketch.nodes if source in n.output), None)
            alone = producer is not None and sum(list(n.input).count(source) for n in sketch.nodes) == 1
            if alone and draw(st.booleans()) and isinstance(offers[producer.name], SupportedForm):  # type: ignore[union-attr]
                offers[name] = SupportedForm("absorbed", float_cost=draw(st.integers(0, 20)), integer_cost=draw(st.integers(0, 20)))
                tensors = [t for t in tensors if t != source] + [made]
                continue
        else:
            made = sketch.add("Add", draw(st.sampled_from(tensors)), draw(st.sampled_from(tensors)), name=name)
        tensors.append(made)
        if draw(st.integers(0, 4)) == 0:
            offers[name] = UnsupportedForm("refused")
        else:
            linear = draw(st.booleans())
            moving = len(sketch.nodes[-1].input) == 1 and draw(st.booleans())
            costs = draw(st.integers(0, 20)), draw(st.integers(0, 20))
            offers[name] = (
                SupportedForm("movement", {}, False, float(costs[0]), float(costs[1]))
                if moving
                else SupportedForm("weighted" if linear else "pointwise", {}, linear, float(costs[0]), float(costs[1]))
            )
    read = {i for n in sketch.nodes for i in n.input}
    made_all = [o for n in sketch.nodes for o in n.output]
    absorbed = {n.input[0] for n in sketch.nodes if isinstance(e := offers[n.name], SupportedForm) and e.form == "absorbed"}
    outputs = [o for o in made_all if o not in read or (o not in absorbed and draw(st.integers(0, 4)) == 0)]
    sizes = {t: draw(st.integers(1, 4)) for t in ["x", *made_all]}
    stats = {t: TensorStats(0, 1, np.zeros(1, np.float32), (n,)) for t, n in sizes.items()}
    return sketch.model(*outputs), offers, CalibrationStatistics(stats, 1)


numbers = st.lists(st.integers(0, 15), min_size=8, max_size=8)


@given(case=placements(), drawn=numbers, rounded=numbers)
@settings(max_examples=300, deadline=None)
def test_the_cut_is_as_cheap_as_the_cheapest_of_all_assignments(
    case: tuple[ir.Model, dict[str, SupportedForm | UnsupportedForm], CalibrationStatistics], drawn: list[int], rounded: list[int]
) -> None:
    model, offers, seen = case
    penalty = {f"op{i}": float(each) for i, each in enumerate(drawn) if each}
    rounding_cost = dict(zip(seen.tensors, map(float, rounded), strict=False))
    free = [name for name, entry in offers.items() if isinstance(entry, SupportedForm)]
    everything = (frozenset(c) for size in range(len(free) + 1) for c in itertools.combinations(free, size))
    cheapest = min(cost_of(integer, model, offers, seen, penalty, rounding_cost) for integer in everything)
    found = cut(model, offers, seen, TARGET, penalty, rounding_cost)
    assert found <= set(free)
    assert cost_of(found, model, offers, seen, penalty, rounding_cost) == cheapest


# What a placement is best at


def priced(
    placement: str | Placement,
    weight_sensitivity: Mapping[str, float] = NOTHING,
    activation_sensitivity: Mapping[str, float] = NOTHING,
    cheaper: Mapping[str, SupportedForm] = NOTHING,
) -> Plan:
    """A chain of two layers, placed."""
    s = Sketch()
    x = s.conv(s.input("x", 1, 64, 16, 16), 64, name="first")
    model = s.model(s.conv(x, 64, name="second"))
    planned = plan_for(model, cheapest=True)
    grids = {n: t.params for n, t in planned.plan.tensors.items() if t.params is not None}
    choice = Choice(grids, _constants(planned), dict(weight_sensitivity), dict(activation_sensitivity))
    best = parse_placement(placement) if isinstance(placement, str) else placement
    bits, target = BitWidths(), planned.target
    return place(model, planned.offers, choice, planned.seen, target, method="", bits=bits, placement=best, cheaper=cheaper)


def forms(plan: Plan) -> dict[str, str]:
    return {name: op.runs for name, op in plan.ops.items()}


def _constants(planned: Planned) -> dict[tuple[str, int], QuantParams]:
    return {(name, i): grid for name, op in planned.plan.ops.items() for i, grid in op.constants.items()}


BOTH = {"first": "integer", "second": "integer"}
SECOND = {"first": "float", "second": "integer"}
NEITHER = {"first": "float", "second": "float"}


def test_a_price_keeps_what_errs_most_in_float() -> None:
    weight_sensitivity = {"first": 1.0, "second": 1e-6}
    assert forms(priced("balanced:0", weight_sensitivity)) == BOTH
    assert forms(priced("balanced:1", weight_sensitivity)) == SECOND
    assert forms(priced("balanced:1e9", weight_sensitivity)) == NEITHER
    assert forms(priced("balanced:1e9")) == BOTH, "a method that knows no errors leaves it at the fastest"


def test_a_tensor_whose_grid_errs_is_not_quantized() -> None:
    """The first layer's input goes with the layer; that between the layers takes either of them along."""
    assert forms(priced("balanced:1", activation_sensitivity={"x": 1.0})) == SECOND
    between = next(n for n, t in priced("balanced:0").tensors.items() if n != "x" and t.kind == "measured")
    assert priced("balanced:1", activation_sensitivity={between: 1.0}).tensors[between].kind == "float"


def test_the_default_gives_up_integers_only_for_errors_that_count_and_only_if_they_cost_little() -> None:
    weight_sensitivity = {"first": 0.0009, "second": 1e-6}
    assert forms(priced("latency", weight_sensitivity)) == BOTH, "within the tolerance"
    weight_sensitivity["first"] = 0.1
    assert forms(priced("latency", weight_sensitivity)) == BOTH, "half of all time is more than can be spared"
    assert forms(priced(replace(LATENCY, spare=10.0), weight_sensitivity)) == SECOND


def test_a_plan_says_what_is_float_for_accuracy() -> None:
    reasons = {name: op.reason for name, op in priced("balanced:1", {"first": 1.0}).ops.items()}
    assert "for accuracy" in reasons["first"] and not reasons["second"]


@pytest.mark.parametrize(("error", "taken"), [(0.0, True), (1e-5, True), (10.0, False)])
def test_a_cheaper_form_is_taken_if_what_it_saves_is_worth_its_error(error: float, taken: bool) -> None:
    """What it adds counts only where it is taken: the operator itself stays in integer."""
    rough = SupportedForm("weighted", float_cost=1e12, coefficients=PiecewiseLinear(0.2, 0.5, 0.0, 1.0))
    plan = priced("balanced:1", {"second": error}, cheaper={"second": rough})
    assert forms(plan) == BOTH
    assert bool(plan.ops["second"].coefficients) == taken


@pytest.mark.parametrize("bits", [(8, 8), (8, 6)])
def test_everything_is_all_that_is_offered(bits: tuple[int, int]) -> None:
    planned = plan_for(mixed_model(), cheapest=True, bits=bits, placement="all")
    offered = {n for n, e in planned.offers.items() if isinstance(e, SupportedForm) and e.form != "requantize"}
    assert {n for n, op in planned.plan.ops.items() if op.runs == "integer"} >= offered
    assert len(offered) > len([1 for op in plan_for(mixed_model(), cheapest=True).plan.ops.values() if op.runs == "integer"])
    consistent(planned)
    assert parity(planned, emitted(planned)) > 30


# Copies


def with_copies(
    model: ir.Model, offers: dict[str, SupportedForm | UnsupportedForm], seen: CalibrationStatistics, originals: set[str]
) -> tuple[ir.Model, dict[str, SupportedForm | UnsupportedForm], CalibrationStatistics]:
    """The same graph, in which every second reader of the tensors named reads a copy."""
    graph = ir.from_proto(ir.to_proto(model)).graph
    offers, tensors = dict(offers), dict(seen.tensors)
    for value in [*graph.inputs, *(o for n in graph for o in n.outputs)]:
        absorbing = [n for n, _ in consumers(value) if isinstance(e := offers[str(n.name)], SupportedForm) and e.form == "absorbed"]
        if value.name not in originals or absorbing or not consumers(value):
            continue
        readers = consumers(value)[::2]
        copy = ir.node("Identity", [value], name=f"copy of {value.name}")
        copy.outputs[0].name, copy.outputs[0].type = f"{value.name}_entering", value.type
        for node, index in readers:
            node.replace_input_with(index, copy.outputs[0])
        graph.insert_before(graph[0], [copy]) if value.producer() is None else graph.insert_after(value.producer(), [copy])
        offers[str(copy.name)] = SupportedForm("requantize", integer_cost=1000.0)
        tensors[str(copy.outputs[0].name)] = tensors[str(value.name)]
    return ir.Model(graph, ir_version=9), offers, CalibrationStatistics(tensors, 1)


@given(case=placements(), drawn=st.sets(st.integers(-1, 6)))
@settings(max_examples=100, deadline=None)
def test_copies_change_nothing_about_what_runs_in_integer(
    case: tuple[ir.Model, dict[str, SupportedForm | UnsupportedForm], CalibrationStatistics], drawn: set[int]
) -> None:
    model, offers, seen = case
    copied = with_copies(model, offers, seen, {"x" if i < 0 else f"op{i}.0" for i in drawn})
    found = cut(*copied, TARGET)
    assert cost_of(found & set(offers), model, offers, seen) == cost_of(cut(model, offers, seen, TARGET), model, offers, seen)
    for node in copied[0].graph:
        if node.op_type == "Identity" and node.name in found:
            producer = node.inputs[0].producer()  # type: ignore[union-attr]
            assert producer is not None and producer.name in found, "a copy of float numbers does not need codes"


def copied_linear(s: Sketch, *, layer: str) -> ir.Model:
    """A linear layer that can write float numbers, a float operator and a copy behind it, and a layer behind the copy."""
    x = s.add("MatMul", s.input("x", 256, 64), s.normal(64, 64), name="linear")
    copy = s.add("Identity", x, name="copy")
    behind = s.add("MatMul", copy, s.normal(64, 64), name="layer") if layer == "integer" else s.add("Softmax", copy, name="layer")
    return s.model(s.add("Erf", x), behind)


@pytest.mark.parametrize("layer", ["integer", "float"])
def test_a_copy_alone_makes_nobody_write_codes(layer: str) -> None:
    """The copy is quantized from the float numbers that the linear layer writes for the float operator, or not at all."""
    sketch = Sketch()
    plan = plan_for(copied_linear(sketch, layer=layer), bits=(8, 6), cheapest=True).plan
    assert (plan.ops["linear"].runs, plan.ops["linear"].writes, plan.ops["copy"].runs) == ("integer", "float", "float")
    assert plan.tensors["linear.0"].kind == "float"
    assert plan.tensors["copy.0"].kind == ("measured" if layer == "integer" else "float")


@pytest.mark.parametrize("layer", ["integer", "float"])
def test_a_copy_of_codes_is_integer_if_codes_are_read(layer: str) -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 16, 16, 16), 16, name="first")
    copy = sketch.add("Identity", x, name="copy")
    behind = sketch.conv(copy, 16, name="layer") if layer == "integer" else sketch.add("Softmax", copy, name="layer")
    plan = plan_for(sketch.model(sketch.add("Erf", x), behind), bits=(8, 6), cheapest=True).plan
    assert plan.ops["first"].writes == "codes"
    assert plan.ops["copy"].runs == layer
    assert plan.tensors["copy.0"].kind == ("measured" if layer == "integer" else "float")


def test_all_stays_float_where_integers_save_less_than_the_targets_margin() -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 64, 16, 16), 64)
    planned = plan_for(sketch.model(sketch.conv(x, 64)))
    choice = Choice({n: t.params for n, t in planned.plan.tensors.items() if t.params is not None}, _constants(planned))
    shapes = {n: s.shape for n, s in planned.seen.tensors.items()}

    def placed(margin: float) -> Plan:
        target = replace(planned.target, margin=margin)
        return place(planned.model, planned.offers, choice, planned.seen, target, method="", bits=BitWidths())

    float_cost, cost = (predict(planned.model, p, planned.offers, shapes, planned.target).total for p in (None, placed(0.0)))
    saved = 1.0 - cost / float_cost
    assert saved > 0.1
    assert all(op.runs == "integer" for op in placed(saved - 1e-6).ops.values())
    assert all(op.runs == "float" for op in placed(saved + 1e-6).ops.values())
    assert all(tensor_plan.kind == "float" for tensor_plan in placed(saved + 1e-6).tensors.values())


# What a plan says


def consistent(planned: Planned) -> None:
    """Every grid that somebody needs is there and follows from where it comes from."""
    plan = planned.plan
    for node in planned.model.graph:
        op = plan.ops.get(str(node.name))
        if op is None or op.runs == "float":
            assert op is None or op.reason
            continue
        entry = planned.offers[str(node.name)]
        assert isinstance(entry, SupportedForm)
        assert set(op.constants) == set(entry.constants)
        for value in node.inputs:
            tensor_plan = plan.tensors.get(str(value.name)) if value is not None else None
            if tensor_plan is not None:
                inside = entry.form == "absorbed"
                assert (tensor_plan.params is None) == inside, value
        for output in node.outputs:
            tensor_plan = plan.tensors[str(output.name)]
            assert (tensor_plan.params is not None) == (op.writes == "codes")
            if tensor_plan.params is not None:
                assert tensor_plan.params.signed == planned.target.signed_activations
            assert (tensor_plan.kind in ("shared", "derived")) == (entry.form in ("movement", "relabel"))
            if tensor_plan.source:
                before = plan.tensors[tensor_plan.source].params
                assert before is not None
                assert tensor_plan.params == (before if tensor_plan.kind == "shared" else before.rescaled(0.5))
    for tensor in plan.tensors.values():
        assert (tensor.kind == "float") == (tensor.params is None) == bool(tensor.reason)


def mixed_model() -> ir.Model:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 8, 8, 8), 8, name="first")
    y = sketch.silu(x)
    y = sketch.add("Relu", sketch.conv(y, 8, name="second"), name="relu")
    y = sketch.add("Mul", sketch.add("Add", y, x, name="residual"), sketch.constant(0.5), name="half")
    tokens = sketch.add(
        "Transpose", sketch.add("Reshape", y, sketch.constant([1, 8, 64], np.int64), name="flat"), perm=[0, 2, 1], name="turn"
    )
    normal = sketch.add("LayerNormalization", tokens, sketch.normal(8), name="norm")
    scores = sketch.add("MatMul", normal, sketch.add("Transpose", normal, perm=[0, 2, 1]), name="scores")
    mixed = sketch.add("MatMul", sketch.add("Softmax", scores, name="softmax"), normal, name="mixed")
    return sketch.model(sketch.add("MatMul", mixed, sketch.normal(8, 5), name="head"), y)


@pytest.mark.parametrize("target", ["arm64", "x86"])
@pytest.mark.parametrize("bits", [(8, 8), (6, 5)])
@pytest.mark.parametrize("cheapest", [True, False])
def test_fates_are_consistent(target: str, bits: tuple[int, int], cheapest: bool) -> None:
    consistent(plan_for(mixed_model(), target, cheapest=cheapest, bits=bits))


def test_fates_by_hand() -> None:
    plan = plan_for(mixed_model()).plan
    kinds = {name: plan.tensors[f"{name}.0"].kind for name in ("first", "second", "relu", "residual", "half", "flat", "turn", "norm")}
    assert kinds == {
        "first": "measured", "second": "float", "relu": "measured", "residual": "measured", "half": "derived", "flat": "shared",
        "turn": "shared", "norm": "measured",
    }  # fmt: skip
    assert plan.tensors["second.0"].reason == "inside a fused group"
    assert (plan.ops["second"].writes, plan.ops["relu"].writes, plan.ops["scores"].writes) == ("fused", "codes", "float")
    assert [plan.tensors[f"{name}.0"].source for name in ("half", "flat", "turn")] == ["residual.0", "half.0", "flat.0"]


@pytest.mark.parametrize(
    ("target", "grid"), [("arm64", QuantParams((2.0**-8,), (-128,), 8, True)), ("x86", QuantParams((2.0**-8,), (0,), 8, False))]
)
def test_a_sigmoid_has_the_runtimes_own_grid(target: str, grid: QuantParams) -> None:
    sketch = Sketch()
    plan = plan_for(sketch.model(sketch.add("Sigmoid", sketch.input("x", 4), name="sigmoid")), target).plan
    assert (plan.tensors["sigmoid.0"].kind, plan.tensors["sigmoid.0"].params) == ("fixed", grid)


def test_excluded_operators_and_their_clamps_stay_float() -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, 16, 16, 16), 16, name="first")
    x = sketch.add("Relu", sketch.conv(x, 16, name="second"), name="relu")
    plan = plan_for(sketch.model(sketch.conv(x, 16, name="third")), cheapest=True, excluded={"second"}).plan
    assert {name: op.runs for name, op in plan.ops.items()} == {"first": "integer", "second": "float", "relu": "float", "third": "integer"}
    assert plan.ops["second"].reason == "excluded by the user"


def test_a_lone_addition_between_float_neighbours_stays_float() -> None:
    sketch = Sketch()
    x = sketch.add("Erf", sketch.input("x", 1, 64))
    plan = plan_for(sketch.model(sketch.add("Erf", sketch.add("Add", x, sketch.normal(64), name="add"))), cheapest=True).plan
    assert (plan.ops["add"].runs, plan.ops["add"].reason) == ("float", "cheaper in float on this target, given its neighbours")
    assert plan.tensors["add.0"].reason == "neither written nor read by an integer operator"


def test_a_linear_layer_writes_codes_as_soon_as_one_reader_wants_them() -> None:
    sketch = Sketch()
    x = sketch.add("MatMul", sketch.input("x", 4, 32), sketch.normal(32, 32), name="linear")
    only_float = sketch.add("Erf", x)
    model = sketch.model(only_float)
    assert plan_for(model).plan.ops["linear"].writes == "float"
    sketch = Sketch()
    x = sketch.add("MatMul", sketch.input("x", 4, 32), sketch.normal(32, 32), name="linear")
    model = sketch.model(sketch.add("Erf", x), sketch.add("Sigmoid", x))
    assert plan_for(model).plan.ops["linear"].writes == "codes"
