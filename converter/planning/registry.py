"""Planning methods: each chooses a grid for every tensor and every constant it is offered.

A method sees numbers and nothing else: what was observed of each tensor, each constant operand, and how many bits
there are. It knows neither ONNX nor the target. A new method is one file here and one line in :data:`METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable

from converter.methods.names import DEFAULT_METHOD
from converter.methods.problem import Problem
from converter.methods.published import easyquant, fq_vit, ptq4vit, repq_vit
from converter.methods.q_hyvit import method as q_hyvit
from converter.methods.q_hyvit.sigmoid_search import choose_ramps
from converter.methods.ranges import minmax, mse, percentile
from converter.plan.choice import Choice
from converter.plan.records import Plan
from converter.transforms.equalization.site import Fold
from converter.transforms.nonuniform.quantizer import Curve
from converter.transforms.sigmoids.piecewise_linear import PricedRamp

__all__ = ["CURVING", "DEFAULT_METHOD", "FOLDING", "METHODS", "RAMPING", "REFINING", "STUDYING", "Choice", "Problem"]

METHODS: dict[str, Callable[[Problem], Choice]] = {
    "minmax": minmax.choose,
    "percentile": percentile.choose,
    "mse": mse.choose,
    "easyquant": easyquant.choose,
    "fq-vit": fq_vit.choose,
    "ptq4vit": ptq4vit.choose,
    "repq-vit": repq_vit.choose,
    "q-hyvit": q_hyvit.choose,
}

STUDYING = frozenset(["easyquant", "fq-vit", "ptq4vit", "repq-vit", "q-hyvit"])
"""Methods that look at layers and blocks, and need to be told about them."""

FOLDING: dict[str, Callable[[Problem], dict[str, Fold]]] = {"repq-vit": repq_vit.fold, "q-hyvit": q_hyvit.fold}
"""Methods that choose per-channel folds before they choose grids."""

CURVING: dict[str, Callable[[Problem], tuple[dict[str, Curve], Choice]]] = {
    "fq-vit": fq_vit.curves,
    "ptq4vit": ptq4vit.curves,
    "repq-vit": repq_vit.curves,
}
"""Methods that choose grids that are not uniform, and a draft of all others, before they choose grids."""

RAMPING: dict[str, Callable[[Problem, Choice], dict[str, PricedRamp]]] = {"q-hyvit": choose_ramps}
"""Methods that replace some sigmoids by ramps once grids are chosen."""

REFINING: dict[str, Callable[[Problem, Plan], Plan]] = {"q-hyvit": q_hyvit.refine}
"""Methods that improve constants once it is settled which operators run in integer."""
