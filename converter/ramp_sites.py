"""Ramp sites: sigmoids of a model for which a ramp could stand, found from the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from converter.costs import features, form_costs
from converter.graph import data_inputs, is_graph_output, sole_consumer
from converter.offers import PASSING, Offer, Refusal
from converter.ramps import Ramp, RampSite
from converter.targets import Target

__all__ = ["RAMP_KIND", "find_ramp_sites", "with_ramps"]

RAMP_KIND = "SigmoidRamp"
"""How targets call the integer form of a ramp."""

Offers = Mapping[str, Offer | Refusal]
Shapes = Mapping[str, tuple[int, ...]]


def find_ramp_sites(model: ir.Model, offers: Offers, shapes: Shapes, target: Target) -> dict[str, RampSite]:
    """Sigmoids that gate what they read, in integer, on a target where a ramp is cheaper; by operator name.

    Args:
        model: canonical float model, folds applied.
        offers: of its operators.
        shapes: of all float tensors.
        target: for the costs.
    """
    result = {}
    for node in model.graph:
        entry = offers.get(str(node.name))
        cost = _ramp_cost(node, shapes, target)
        if isinstance(entry, Offer) and node.op_type == "Sigmoid" and cost is not None and _gates_its_input(node, offers):
            saved = entry.integer_cost - cost
            if saved > 0.0:
                result[str(node.name)] = RampSite(str(node.inputs[0].name) if node.inputs[0] is not None else "", saved)
    return result


def with_ramps(model: ir.Model, offers: Offers, ramps: Mapping[str, Ramp], shapes: Shapes, target: Target) -> dict[str, Offer | Refusal]:
    """The same offers, with ramps for some sigmoids."""
    result = dict(offers)
    for node in model.graph:
        name = str(node.name)
        entry, cost = offers.get(name), _ramp_cost(node, shapes, target)
        if name in ramps and isinstance(entry, Offer) and cost is not None:
            result[name] = replace(entry, gate=ramps[name], integer_cost=cost)
    return result


def _ramp_cost(node: ir.Node, shapes: Shapes, target: Target) -> float | None:
    return form_costs(RAMP_KIND, features(node, shapes), target)[1]


def _gates_its_input(node: ir.Node, offers: Offers) -> bool:
    """True if a product in integer of the sigmoid with its own input is all that reads it."""
    output, x = node.outputs[0], node.inputs[0]
    reader = sole_consumer(output)
    if reader is None or x is None or is_graph_output(output) or reader.op_type != "Mul":
        return False
    entry, maker = offers.get(str(reader.name)), x.producer()
    made = offers.get(str(maker.name)) if maker is not None else None
    if not isinstance(made, Offer) or made.form in PASSING or (maker is not None and maker.op_type == "Sigmoid"):
        return False  # its grid would not be the one that was chosen for it
    operands = [value for _, value in data_inputs(reader)]
    return isinstance(entry, Offer) and entry.form == "pointwise" and operands in ([x, output], [output, x])
