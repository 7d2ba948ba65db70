"""Constants in the place of sigmoids, as a transform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from converter.transforms.sigmoids.constant import apply_levels
from converter.transforms.transform import GraphFacts

__all__ = ["ConstantGates"]


@dataclass(frozen=True)
class ConstantGates:
    """Constants in the place of sigmoids, as a transform.

    Attributes:
        levels: by the name of the sigmoid.
    """

    key: ClassVar[str] = "levels"

    levels: Mapping[str, float]

    def apply(self, model: ir.Model, facts: GraphFacts) -> ir.Model:
        """See :class:`converter.transforms.transform.Transform`."""
        return apply_levels(model, self.levels)
