"""Sigmoids of a model for which a piecewise-linear one could stand, found from the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from converter.forms.form import SupportedForm, UnsupportedForm
from converter.forms.registry import PASSING
from converter.targets import Target
from converter.targets.costs import PIECEWISE_LINEAR_KIND, features, form_costs
from converter.transforms.sigmoids.constant import gated_product
from converter.transforms.sigmoids.piecewise_linear import PiecewiseLinear, SigmoidSite

__all__ = ["find_sigmoid_sites", "piecewise_linear_forms"]

Offers = Mapping[str, SupportedForm | UnsupportedForm]
Shapes = Mapping[str, tuple[int, ...]]


def find_sigmoid_sites(model: ir.Model, offers: Offers, shapes: Shapes, target: Target) -> dict[str, SigmoidSite]:
    """Sigmoids that gate what they read, in integer, on a target where a piecewise-linear sigmoid is cheaper; by operator name.

    Args:
        model: canonical float model, equalizations applied.
        offers: of its operators.
        shapes: of all float tensors.
        target: for the costs.
    """
    result = {}
    for node in model.graph:
        entry, cost = offers.get(str(node.name)), _approximation_cost(node, shapes, target)
        product = _integer_product(node, offers)
        if isinstance(entry, SupportedForm) and cost is not None and product is not None and entry.integer_cost > cost:
            read = str(node.inputs[0].name) if node.inputs[0] is not None else ""
            result[str(node.name)] = SigmoidSite(read, entry.integer_cost - cost, entry.integer_cost + product.integer_cost)
    return result


def piecewise_linear_forms(
    model: ir.Model, offers: Offers, approximations: Mapping[str, PiecewiseLinear], shapes: Shapes, target: Target
) -> dict[str, SupportedForm]:
    """What some sigmoids would be as piecewise-linear ones, by operator name."""
    result = {}
    for node in model.graph:
        name = str(node.name)
        entry, cost = offers.get(name), _approximation_cost(node, shapes, target)
        if name in approximations and isinstance(entry, SupportedForm) and cost is not None:
            result[name] = replace(entry, form="piecewise_linear", coefficients=approximations[name], integer_cost=cost)
    return result


def _approximation_cost(node: ir.Node, shapes: Shapes, target: Target) -> float | None:
    return form_costs(PIECEWISE_LINEAR_KIND, features(node, shapes), target)[1]


def _integer_product(node: ir.Node, offers: Offers) -> SupportedForm | None:
    """The integer form of the product of a sigmoid with its own input, if that product is all that reads the sigmoid."""
    product, x = gated_product(node), node.inputs[0]
    maker = x.producer() if x is not None else None
    made = offers.get(str(maker.name)) if maker is not None else None
    if product is None or not isinstance(made, SupportedForm) or made.form in PASSING or (maker is not None and maker.op_type == "Sigmoid"):
        return None  # its grid would not be the one that was chosen for it
    entry = offers.get(str(product.name))
    return entry if isinstance(entry, SupportedForm) and entry.form == "pointwise" else None
