"""Layer normalizations without factor and offset, as a transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from converter.transforms.normalization.plain import make_plain
from converter.transforms.transform import GraphFacts

__all__ = ["PlainNormalizations"]


@dataclass(frozen=True)
class PlainNormalizations:
    """Layer normalizations without factor and offset, as a transform.

    Attributes:
        plain_normalizations: names of the operators.
    """

    key: ClassVar[str] = "plain_normalizations"

    plain_normalizations: tuple[str, ...]

    def apply(self, model: ir.Model, facts: GraphFacts) -> ir.Model:
        """See :class:`converter.transforms.transform.Transform`."""
        return make_plain(model, facts, self.plain_normalizations)
