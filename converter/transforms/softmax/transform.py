"""Softmaxes that are divided behind the product that reads them, as a transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from converter.transforms.softmax.late import make_late
from converter.transforms.transform import GraphFacts

__all__ = ["LateSoftmaxes"]


@dataclass(frozen=True)
class LateSoftmaxes:
    """Softmaxes that are divided behind the product that reads them, as a transform.

    Attributes:
        late_softmaxes: names of the operators.
    """

    key: ClassVar[str] = "late_softmaxes"

    late_softmaxes: tuple[str, ...]

    def apply(self, model: ir.Model, facts: GraphFacts) -> ir.Model:
        """See :class:`converter.transforms.transform.Transform`."""
        return make_late(model, facts, self.late_softmaxes)
