"""Equalization as a transform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from converter.transforms.equalization.apply import apply_equalizations
from converter.transforms.equalization.find import find_sites
from converter.transforms.equalization.site import Equalization
from converter.transforms.transform import GraphFacts

__all__ = ["Equalizations"]


@dataclass(frozen=True)
class Equalizations:
    """Equalization as a transform.

    Attributes:
        equalizations: by key tensor.
    """

    key: ClassVar[str] = "equalizations"

    equalizations: Mapping[str, Equalization]

    def apply(self, model: ir.Model, facts: GraphFacts) -> ir.Model:
        """See :class:`converter.transforms.transform.Transform`."""
        return apply_equalizations(model, find_sites(model, facts.shapes), self.equalizations)
