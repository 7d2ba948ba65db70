"""Non-uniform quantizers as a transform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from converter.transforms.nonuniform.apply import apply_curves
from converter.transforms.nonuniform.find import find_spots
from converter.transforms.nonuniform.quantizer import Curve
from converter.transforms.transform import GraphFacts

__all__ = ["NonuniformQuantization"]


@dataclass(frozen=True)
class NonuniformQuantization:
    """Non-uniform quantizers as a transform.

    Attributes:
        curves: by the tensor that is read.
    """

    key: ClassVar[str] = "curves"

    curves: Mapping[str, Curve]

    def apply(self, model: ir.Model, facts: GraphFacts) -> ir.Model:
        """See :class:`converter.transforms.transform.Transform`."""
        return apply_curves(model, find_spots(model, facts.excluded), self.curves)
