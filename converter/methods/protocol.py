"""What a method consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from converter.methods.problem import Problem
from converter.plan.choice import Choice
from converter.plan.records import Plan
from converter.transforms.sigmoids.piecewise_linear import PricedApproximation
from converter.transforms.transform import Transform

__all__ = ["Method", "Proposal"]


class Proposal(NamedTuple):
    """A transform, if the method wants one here, and its first choice, if it has one already."""

    transform: Transform | None
    first_choice: Choice | None = None


@dataclass(frozen=True)
class Method:
    """The functions of a method, asked from top to bottom.

    Attributes:
        transforms: each proposes a change of the graph; the next one sees the changed graph.
        choose: quantization parameters for every tensor and constant.
        sigmoids: cheaper functions in the place of sigmoids, by operator name, once these parameters are known.
        refine: better constants, once it is known which operators run in integer.
        needs_context: whether it looks at layers and blocks, and needs an analysis context of the network.
        keeps_normalizations: whether it changes factors and offsets of layer normalizations itself, so that they have to stay.
        keeps_softmaxes: whether it has quantizers of its own behind a softmax, which therefore has to stay.
        shares: of the time, by name of its parts in their order, for whoever waits; empty if it has no parts.
    """

    choose: Callable[[Problem], Choice]
    transforms: tuple[Callable[[Problem], Proposal], ...] = ()
    sigmoids: Callable[[Problem, Choice], dict[str, PricedApproximation]] | None = None
    refine: Callable[[Problem, Plan], Plan] | None = None
    needs_context: bool = False
    keeps_normalizations: bool = False
    keeps_softmaxes: bool = False
    shares: Mapping[str, float] = field(default_factory=dict)
