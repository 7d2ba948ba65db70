"""Predicted costs of whole models, added up by hand from round prices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from converter.forms.form import SupportedForm
from converter.partition.cost_model import CALL, CostEstimate, in_second_unit, predict
from converter.targets import TARGETS, Cost
from converter.testing.sketch import Planned, Sketch, classifier, plan_for, shapes_of

CHANNELS, PLACES = 8, 36
SIZE = CHANNELS * PLACES
PRICES = {
    "PointwiseConv": Cost({"element": 10.0}, {"element": 4.0}),
    "Sigmoid": Cost({"element": 8.0}, {"element": 3.0}),
    "Mul": Cost({"element": 2.0}, {"element": 1.0}),
    "Softmax": Cost({"element": 9.0}, None),
}


def planned(integer: tuple[str, ...]) -> Planned:
    """A convolution that a SiLU and a Softmax read."""
    s = Sketch(0)
    x = s.conv(s.input("x", 1, CHANNELS, 6, 6), CHANNELS, size=1, name="conv")
    gate = s.add("Sigmoid", x, name="sigmoid")
    model = s.model(s.add("Mul", x, gate, name="mul"), s.add("Softmax", x, name="softmax"))
    return plan_for(model, integer=integer)


def predicted(planned: Planned, *, as_float: bool = False) -> dict[str, tuple[int, float]]:
    """Operators and cost per element, by kind and form."""
    target = replace(planned.target, costs=PRICES, call=100.0, quantize_element=3.0, dequantize_element=2.0)
    shapes = {name: stats.shape for name, stats in planned.seen.tensors.items()}
    offers = dict(planned.offers)
    for name, price in (("conv", 4.0), ("sigmoid", 3.0), ("mul", 1.0)):
        entry = offers[name]
        assert isinstance(entry, SupportedForm)
        offers[name] = replace(entry, integer_cost=price * SIZE)
    cost = predict(planned.model, None if as_float else planned.plan, offers, shapes, target)
    assert cost.total == pytest.approx(sum(each for _, each in cost.kinds.values()))
    assert list(cost.kinds.values()) == sorted(cost.kinds.values(), key=lambda pair: -pair[1])
    return {kind: (count, each / SIZE) for kind, (count, each) in cost.kinds.items()}


FLOATS = {"PointwiseConv float": (1, 10.0), "Sigmoid float": (1, 8.0), "Mul float": (1, 2.0), "Softmax float": (1, 9.0)}
CALLED = {CALL: (1, pytest.approx(100.0 / SIZE))}


def test_a_float_model_costs_its_operators_and_the_call() -> None:
    assert predicted(planned(("conv", "sigmoid", "mul")), as_float=True) == {**FLOATS, **CALLED}
    assert predicted(planned(())) == {**FLOATS, **CALLED}


def test_a_tensor_pays_its_dq_once_however_many_read_it_and_what_writes_codes_pays_no_q() -> None:
    """The convolution writes codes, which Sigmoid, Mul and Softmax read as numbers; its input pays the only Q."""
    others = {kind: cost for kind, cost in FLOATS.items() if kind != "PointwiseConv float"}
    conversions = {"QuantizeLinear": (1, 3.0), "DequantizeLinear": (1, 2.0)}
    assert predicted(planned(("conv",))) == {**others, **CALLED, **conversions, "PointwiseConv integer": (1, 4.0)}


def test_integer_operators_in_a_row_pay_nothing_between_them() -> None:
    """A Q for the input, a DQ for the Softmax and one for the output that the product writes."""
    integers = {"PointwiseConv integer": (1, 4.0), "Sigmoid integer": (1, 3.0), "Mul integer": (1, 1.0)}
    conversions = {"QuantizeLinear": (1, 3.0), "DequantizeLinear": (2, 4.0)}
    found = predicted(planned(("conv", "sigmoid", "mul")))
    assert found == {"Softmax float": (1, 9.0), **CALLED, **integers, **conversions}


@pytest.mark.parametrize("target", TARGETS)
def test_integer_forms_cost_what_they_were_offered_for(target: str) -> None:
    """The prices of the forms are those of the offers, so that other prices can be put in their place."""
    s = Sketch(1)
    x = s.add("Pad", s.add("HardSwish", s.conv(s.input("x", 1, 16, 16, 16), 16)), s.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    x = s.add("Clip", s.add("Gelu", s.silu(x)), s.constant(0.0), s.constant(1.0))
    for model in (classifier(), s.model(s.add("Relu", s.add("Concat", x, x, axis=1)))):
        for bits in ((8, 8), (8, 6)):
            found = plan_for(model.clone(), target, bits=bits)
            given, again = (
                predict(found.model, found.plan, offers, shapes_of(found.model), found.target) for offers in (found.offers, None)
            )
            assert given == again


def test_the_second_unit_is_added_up_from_its_own_prices() -> None:
    found = planned(("conv",))
    shapes = shapes_of(found.model)
    second = replace(found.target, unit="cycles", costs=PRICES, call=100.0, quantize_element=3.0, dequantize_element=2.0, second=None)
    target = replace(found.target, second=second)
    in_float, as_planned = 100.0 + (10 + 8 + 2 + 9) * SIZE, 100.0 + (4 + 8 + 2 + 9 + 3 + 2) * SIZE
    assert in_second_unit(found.model, found.model, found.plan, shapes, target) == CostEstimate("cycles", as_planned, in_float)
    assert in_second_unit(found.model, found.model, found.plan, shapes, second) is None


def test_a_form_that_only_the_plan_has_costs_what_the_target_says() -> None:
    """As a piecewise-linear sigmoid, which its method found, where the plan is read again."""
    s = Sketch(1)
    found = plan_for(s.model(s.silu(s.conv(s.input("x", 1, 16, 16, 16), 16))), "arm64")
    name = next(name for name, op in found.plan.ops.items() if op.op_type == "Sigmoid")
    read = replace(found.plan, ops={**found.plan.ops, name: replace(found.plan.ops[name], form="piecewise_linear")})
    shapes = shapes_of(found.model)
    before, after = (predict(found.model, plan, found.offers, shapes, found.target).total for plan in (found.plan, read))
    assert after == predict(found.model, read, None, shapes, found.target).total < before
