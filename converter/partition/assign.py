"""Assign operators to integer or float, by the minimum cut, for speed and for what accuracy is worth."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

import onnx_ir as ir

from converter.calibration.observer import CalibrationStatistics
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.partition.cost_model import predict
from converter.partition.cut_graph import cut, everything
from converter.partition.policy import FOR_ACCURACY, LATENCY, Placed, Placement, Placer, added_loss, affordable, penalties
from converter.partition.write_assignment import CHEAPER, write_assignment
from converter.plan.choice import Choice
from converter.plan.records import Plan
from converter.quantization.bit_widths import BitWidths
from converter.targets import Target

__all__ = ["explained", "fake_quantizable", "most_cost", "place", "placer"]

_NEVER = 1e3
"""Times the cost of all float operators that an operator costs in float which must run in integer."""


def place(
    model: ir.Model,
    offers: Mapping[str, SupportedForm | UnsupportedForm],
    choice: Choice,
    seen: CalibrationStatistics,
    target: Target,
    *,
    method: str,
    bits: BitWidths,
    placement: Placement = LATENCY,
    cheaper: Mapping[str, SupportedForm] = MappingProxyType({}),
) -> Plan:
    """Turn a method's choice of grids into a complete plan.

    Args:
        model: canonical float model.
        offers: what could run in integer.
        choice: grids of all tensors and constants, and what they add to the loss.
        seen: for the sizes of tensors.
        target: for the costs of Q and DQ.
        method: name of the method, recorded in the plan.
        bits: recorded in the plan.
        placement: what it shall be best at.
        cheaper: for some operators, a second offer that costs less; their error is that of this one.
    """
    empty = Plan(method, bits, target.name, {}, {})
    if placement.everything:
        integer = everything(model, offers)
        fake_quantized = fake_quantizable(offers) if placement.full else frozenset[str]()
        return write_assignment(model, offers, choice, integer, empty, fake_quantized)
    placed = placer(model, offers, choice, seen, target, method=method, bits=bits, cheaper=cheaper)
    fastest = placed(0.0)
    cheapest = placed(placement.price) if placement.price else fastest
    most = most_cost(model, seen, target)
    if cheapest.cost > most:
        return write_assignment(model, offers, choice, frozenset(), empty)
    return explained(affordable(placed, cheapest, placement, most).plan, fastest.plan)


def placer(
    model: ir.Model,
    offers: Mapping[str, SupportedForm | UnsupportedForm],
    choice: Choice,
    seen: CalibrationStatistics,
    target: Target,
    *,
    method: str,
    bits: BitWidths,
    cheaper: Mapping[str, SupportedForm] = MappingProxyType({}),
) -> Placer:
    """What gives the best placement at any price of accuracy; arguments as for :func:`place`."""
    empty = Plan(method, bits, target.name, {}, {})
    shapes = {name: stats.shape for name, stats in seen.tensors.items()}
    float_cost = predict(model, None, {}, shapes, target).total

    def placed(price: float, floats: Collection[str] = (), integers: Collection[str] = ()) -> Placed:
        price *= float_cost
        rough = {
            name: entry
            for name, entry in cheaper.items()
            if _worthwhile(offers[name], entry, price * choice.weight_sensitivity.get(name, 0.0))
        }
        some = _forced({**offers, **rough}, floats, integers)
        weight_sensitivity = {name: error for name, error in choice.weight_sensitivity.items() if name in rough or name not in cheaper}
        integer = cut(model, some, seen, target, penalties(price, weight_sensitivity), penalties(price, choice.activation_sensitivity))
        plan = write_assignment(model, some, choice, integer, empty)
        return Placed(
            plan, predict(model, plan, some, shapes, target).total, added_loss(plan, choice.activation_sensitivity, weight_sensitivity)
        )

    return placed


def most_cost(model: ir.Model, seen: CalibrationStatistics, target: Target) -> float:
    """What a placement may cost at most, so that integer operators save as much as the target's margin asks for."""
    shapes = {name: stats.shape for name, stats in seen.tensors.items()}
    return (1.0 - target.margin) * predict(model, None, {}, shapes, target).total


def explained(plan: Plan, fastest: Plan) -> Plan:
    """The same plan, which says what is float for another reason than speed."""
    given_up = [name for name, op in plan.ops.items() if op.reason == CHEAPER and fastest.ops[name].runs == "integer"]
    return replace(plan, ops={**plan.ops, **{name: replace(plan.ops[name], reason=FOR_ACCURACY) for name in given_up}})


def fake_quantizable(offers: Mapping[str, SupportedForm | UnsupportedForm]) -> frozenset[str]:
    """Names of all operators that have no integer form, but could read and write codes."""
    return frozenset(n for n, e in offers.items() if isinstance(e, UnsupportedForm) and not e.final)


def _forced(
    offers: Mapping[str, SupportedForm | UnsupportedForm], floats: Collection[str], integers: Collection[str]
) -> Mapping[str, SupportedForm | UnsupportedForm]:
    """Offers that leave some operators no choice."""
    found = dict(offers)
    dear = sum(entry.float_cost for entry in offers.values() if isinstance(entry, SupportedForm)) + 1.0
    for name in floats:
        found[name] = UnsupportedForm(FOR_ACCURACY)
    for name in integers:
        entry = found[name]
        if isinstance(entry, SupportedForm):
            found[name] = replace(entry, float_cost=_NEVER * dear)
    return found


def _worthwhile(plain: SupportedForm | UnsupportedForm, rough: SupportedForm, error_cost: float) -> bool:
    return isinstance(plain, SupportedForm) and plain.integer_cost - rough.integer_cost >= error_cost
