"""Non-uniform quantizers as a transform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from converter.transforms.nonuniform.apply import apply_quantizers
from converter.transforms.nonuniform.find import find_quantizer_sites
from converter.transforms.nonuniform.quantizer import NonuniformQuantizer
from converter.transforms.transform import GraphFacts

__all__ = ["NonuniformQuantization"]


@dataclass(frozen=True)
class NonuniformQuantization:
    """Non-uniform quantizers as a transform.

    Attributes:
        nonuniform_quantizers: by the tensor that is read.
    """

    key: ClassVar[str] = "nonuniform_quantizers"

    nonuniform_quantizers: Mapping[str, NonuniformQuantizer]

    def apply(self, model: ir.Model, facts: GraphFacts) -> ir.Model:
        """See :class:`converter.transforms.transform.Transform`."""
        return apply_quantizers(model, find_quantizer_sites(model, facts.excluded), self.nonuniform_quantizers)
