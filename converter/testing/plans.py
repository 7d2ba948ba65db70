"""What a plan's transforms hold, by kind."""

from __future__ import annotations

from converter.plan.records import Plan
from converter.transforms.equalization.site import Fold
from converter.transforms.equalization.transform import Equalization
from converter.transforms.nonuniform.quantizer import Curve
from converter.transforms.nonuniform.transform import NonuniformQuantization
from converter.transforms.sigmoids.transform import ConstantGates

__all__ = ["curves_of", "folds_of", "levels_of"]


def folds_of(plan: Plan) -> dict[str, Fold]:
    return {name: fold for t in plan.transforms if isinstance(t, Equalization) for name, fold in t.folds.items()}


def curves_of(plan: Plan) -> dict[str, Curve]:
    return {name: curve for t in plan.transforms if isinstance(t, NonuniformQuantization) for name, curve in t.curves.items()}


def levels_of(plan: Plan) -> dict[str, float]:
    return {name: level for t in plan.transforms if isinstance(t, ConstantGates) for name, level in t.levels.items()}
