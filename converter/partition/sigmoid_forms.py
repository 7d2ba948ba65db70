"""Ramp sites: sigmoids of a model for which a ramp could stand, found from the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from converter.forms.form import SupportedForm, UnsupportedForm
from converter.forms.registry import PASSING
from converter.targets import Target
from converter.targets.costs import features, form_costs
from converter.transforms.sigmoids.constant import gated_product
from converter.transforms.sigmoids.piecewise_linear import Ramp, RampSite

__all__ = ["RAMP_KIND", "find_ramp_sites", "ramp_offers"]

RAMP_KIND = "SigmoidRamp"
"""How targets call the integer form of a ramp."""

Offers = Mapping[str, SupportedForm | UnsupportedForm]
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
        entry, cost = offers.get(str(node.name)), _ramp_cost(node, shapes, target)
        product = _integer_product(node, offers)
        if isinstance(entry, SupportedForm) and cost is not None and product is not None and entry.integer_cost > cost:
            read = str(node.inputs[0].name) if node.inputs[0] is not None else ""
            result[str(node.name)] = RampSite(read, entry.integer_cost - cost, entry.integer_cost + product.integer_cost)
    return result


def ramp_offers(model: ir.Model, offers: Offers, ramps: Mapping[str, Ramp], shapes: Shapes, target: Target) -> dict[str, SupportedForm]:
    """What some sigmoids would be with ramps in their place, by operator name."""
    result = {}
    for node in model.graph:
        name = str(node.name)
        entry, cost = offers.get(name), _ramp_cost(node, shapes, target)
        if name in ramps and isinstance(entry, SupportedForm) and cost is not None:
            result[name] = replace(entry, form="piecewise_linear", gate=ramps[name], integer_cost=cost)
    return result


def _ramp_cost(node: ir.Node, shapes: Shapes, target: Target) -> float | None:
    return form_costs(RAMP_KIND, features(node, shapes), target)[1]


def _integer_product(node: ir.Node, offers: Offers) -> SupportedForm | None:
    """The integer form of the product of a sigmoid with its own input, if that product is all that reads the sigmoid."""
    product, x = gated_product(node), node.inputs[0]
    maker = x.producer() if x is not None else None
    made = offers.get(str(maker.name)) if maker is not None else None
    if product is None or not isinstance(made, SupportedForm) or made.form in PASSING or (maker is not None and maker.op_type == "Sigmoid"):
        return None  # its grid would not be the one that was chosen for it
    entry = offers.get(str(product.name))
    return entry if isinstance(entry, SupportedForm) and entry.form == "pointwise" else None
