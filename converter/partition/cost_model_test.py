"""Predicted costs of whole models, added up by hand from round prices."""

from __future__ import annotations

from dataclasses import replace

import pytest

from converter.forms.form import SupportedForm
from converter.partition.cost_model import CALL, predict
from converter.targets import Cost
from converter.testing.sketch import Planned, Sketch, plan_for

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
