"""What a plan's transforms hold, by kind."""

from __future__ import annotations

from converter.plan.records import Plan
from converter.transforms.equalization.site import Equalization
from converter.transforms.equalization.transform import Equalizations
from converter.transforms.nonuniform.quantizer import NonuniformQuantizer
from converter.transforms.nonuniform.transform import NonuniformQuantization
from converter.transforms.sigmoids.transform import ConstantGates

__all__ = ["constant_gates_of", "equalizations_of", "quantizers_of"]


def equalizations_of(plan: Plan) -> dict[str, Equalization]:
    return {name: equalization for t in plan.transforms if isinstance(t, Equalizations) for name, equalization in t.equalizations.items()}


def quantizers_of(plan: Plan) -> dict[str, NonuniformQuantizer]:
    return {
        name: quantizer
        for t in plan.transforms
        if isinstance(t, NonuniformQuantization)
        for name, quantizer in t.nonuniform_quantizers.items()
    }


def constant_gates_of(plan: Plan) -> dict[str, float]:
    return {
        name: constant_gate for t in plan.transforms if isinstance(t, ConstantGates) for name, constant_gate in t.constant_gates.items()
    }
