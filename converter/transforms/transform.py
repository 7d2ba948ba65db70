"""What every transform has in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import onnx_ir as ir

__all__ = ["GraphFacts", "Transform"]


@dataclass(frozen=True)
class GraphFacts:
    """What a transform has to know of a graph besides the graph.

    Attributes:
        shapes: of tensors on one calibration sample, by name.
        excluded: names of nodes that stay as they are, in float.
    """

    shapes: Mapping[str, tuple[int, ...]]
    excluded: frozenset[str] = frozenset()


class Transform(Protocol):
    """A change of the canonical graph that a method chooses and a plan records: plain data, exact in float or nearly so.

    Attributes:
        key: under which a plan file holds it.
    """

    key: ClassVar[str]

    def apply(self, model: ir.Model, facts: GraphFacts) -> ir.Model:
        """A changed copy of a canonical float model. The names of the nodes and tensors that are left stay.

        Raises:
            ValueError: it does not fit this model; says where.
        """
