"""Equalization as a transform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from converter.transforms.equalization.apply import apply_folds
from converter.transforms.equalization.find import find_sites
from converter.transforms.equalization.site import Fold
from converter.transforms.transform import GraphFacts

__all__ = ["Equalization"]


@dataclass(frozen=True)
class Equalization:
    """Equalization as a transform.

    Attributes:
        folds: by key tensor.
    """

    key: ClassVar[str] = "folds"

    folds: Mapping[str, Fold]

    def apply(self, model: ir.Model, facts: GraphFacts) -> ir.Model:
        """See :class:`converter.transforms.transform.Transform`."""
        return apply_folds(model, find_sites(model, facts.shapes), self.folds)
