"""Constants in the place of sigmoids, as a transform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from converter.transforms.sigmoids.constant import apply_constant_gates
from converter.transforms.transform import GraphFacts

__all__ = ["ConstantGates"]


@dataclass(frozen=True)
class ConstantGates:
    """Constants in the place of sigmoids, as a transform.

    Attributes:
        constant_gates: by the name of the sigmoid.
    """

    key: ClassVar[str] = "constant_gates"

    constant_gates: Mapping[str, float]

    def apply(self, model: ir.Model, facts: GraphFacts) -> ir.Model:
        """See :class:`converter.transforms.transform.Transform`."""
        return apply_constant_gates(model, self.constant_gates)
