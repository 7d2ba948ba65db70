"""Ramp sites: gates of a model, the sigmoids of SiLUs and those inside integer GELUs, for which a ramp could stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from converter.costs import features, form_costs
from converter.levels import gated_product
from converter.offers import PASSING, Offer, Refusal
from converter.ramps import Ramp, RampSite
from converter.targets import Target

__all__ = ["RAMP_KIND", "find_ramp_sites", "with_ramps"]

RAMP_KIND = "SigmoidRamp"
"""How targets call the integer form of a ramp."""

Offers = Mapping[str, Offer | Refusal]
Shapes = Mapping[str, tuple[int, ...]]


def find_ramp_sites(model: ir.Model, offers: Offers, shapes: Shapes, target: Target) -> dict[str, RampSite]:
    """Sigmoids that gate what they read, and GELUs, in integer, on a target where a ramp is cheaper; by operator name.

    Args:
        model: canonical float model, folds applied.
        offers: of its operators.
        shapes: of all float tensors.
        target: for the costs.
    """
    result = {}
    for node in model.graph:
        entry, saved = offers.get(str(node.name)), _saved(node, shapes, target)
        if not isinstance(entry, Offer) or saved <= 0.0 or not _has_own_grid(node.inputs[0], offers):
            continue
        product = _integer_product(node, offers)
        read = str(node.inputs[0].name) if node.inputs[0] is not None else ""
        if product is not None:
            result[str(node.name)] = RampSite(read, saved, entry.integer_cost + product.integer_cost)
        elif entry.form == "gelu":
            result[str(node.name)] = RampSite(read, saved, 0.0)
    return result


def with_ramps(model: ir.Model, offers: Offers, ramps: Mapping[str, Ramp], shapes: Shapes, target: Target) -> dict[str, Offer | Refusal]:
    """The same offers, with ramps for some gates."""
    result = dict(offers)
    for node in model.graph:
        name = str(node.name)
        entry = offers.get(name)
        if name in ramps and isinstance(entry, Offer):
            result[name] = replace(entry, gate=ramps[name], integer_cost=entry.integer_cost - _saved(node, shapes, target))
    return result


def _saved(node: ir.Node, shapes: Shapes, target: Target) -> float:
    """What a ramp costs less than the sigmoid that it stands for; 0 where the target knows no price for one of them."""
    found = features(node, shapes)
    table, ramp = (form_costs(kind, found, target)[1] for kind in ("Sigmoid", RAMP_KIND))
    return 0.0 if table is None or ramp is None else table - ramp


def _has_own_grid(x: ir.Value | None, offers: Offers) -> bool:
    """True if the grid of a tensor is the one that is chosen for it, and written by an integer operator."""
    maker = x.producer() if x is not None else None
    made = offers.get(str(maker.name)) if maker is not None else None
    return isinstance(made, Offer) and made.form not in PASSING and maker is not None and maker.op_type != "Sigmoid"


def _integer_product(node: ir.Node, offers: Offers) -> Offer | None:
    """The integer form of the product of a sigmoid with its own input, if that product is all that reads the sigmoid."""
    product = gated_product(node)
    entry = offers.get(str(product.name)) if product is not None else None
    return entry if isinstance(entry, Offer) and entry.form == "pointwise" else None
