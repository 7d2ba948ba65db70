from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from converter.forms.form import SupportedForm
from converter.partition.assign import place
from converter.partition.cost_model import predict
from converter.partition.policy import LATENCY, Placement, parse_placement
from converter.plan.choice import Choice
from converter.plan.records import Plan
from converter.quantization.bit_widths import BitWidths
from converter.quantization.parameters import QuantParams
from converter.testing.sketch import Planned, Sketch, plan_for
from converter.transforms.sigmoids.piecewise_linear import PiecewiseLinear

NOTHING: Mapping[str, Any] = MappingProxyType({})


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
