"""What is known of a model while its operators are visited: the labels of each tensor, and which constants take them.

Every element of every float tensor has two labels (:mod:`converter.transforms.equalization.labels`): one for the factor by which it may be
divided and one for the shift that may be taken off before. Layers and normalizations give out new labels, since their
constants can bring about any factor; operators that cannot do with a factor pin the labels of what they read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.graph.queries import data_inputs
from converter.transforms.equalization.labels import Classes, Labels, compress, merge_axes

__all__ = ["PINNED", "RawBiasAbsorption", "RawScaling", "RawShifting", "Reading", "Tracked", "Tracker"]

PINNED = np.zeros((), np.int64)


@dataclass(frozen=True)
class Tracked:
    """The labels of a tensor: factors and shifts, each with as many axes as the tensor."""

    scale: Labels
    shift: Labels


@dataclass(frozen=True, eq=False)
class RawScaling:
    """Constant operand ``index`` is to be multiplied by the factors of ``labels`` to the given power."""

    node: str
    index: int
    labels: Labels
    power: int


@dataclass(frozen=True, eq=False)
class RawShifting:
    """The shifts of ``labels`` are to be subtracted from constant operand ``index``."""

    node: str
    index: int
    labels: Labels


@dataclass(frozen=True, eq=False)
class RawBiasAbsorption:
    """Products of a layer's weight with the shifts of ``labels`` go to a bias; see :class:`.site.Uptake`."""

    node: str
    labels: Labels
    axis: int
    bias_node: str
    bias_index: int


@dataclass(frozen=True)
class Reading:
    """A tensor that enters a layer, or the left operand of a product."""

    value: ir.Value
    node: ir.Node
    index: int
    layer: bool


class Tracker:
    """Labels of the tensors visited so far, and records of what takes them."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.scale = Classes()
        self.shift = Classes()
        self.made: dict[ir.Value, Tracked] = {}
        self.scalings: list[RawScaling] = []
        self.shiftings: list[RawShifting] = []
        self.absorptions: list[RawBiasAbsorption] = []
        self.readings: list[Reading] = []

    def shape(self, value: ir.Value) -> tuple[int, ...] | None:
        """The tensor's shape at calibration, if it is known."""
        return self.shapes.get(str(value.name))

    def labels(self, value: ir.Value | None) -> Tracked:
        """Labels of a tensor; pinned if it is constant or not known."""
        if value is not None and value in self.made:
            tracked = self.made[value]
            return Tracked(self.scale.resolve(tracked.scale), self.shift.resolve(tracked.shift))
        rank = len(value.shape) if value is not None and value.shape is not None else 0
        return Tracked(PINNED.reshape([1] * rank), PINNED.reshape([1] * rank))

    def store(self, value: ir.Value, scale: Labels | None = None, shift: Labels | None = None) -> None:
        """Set the labels of an output; what is not given is pinned."""
        shape = self.shape(value)
        if shape is None:
            for classes, labels in ((self.scale, scale), (self.shift, shift)):
                if labels is not None:
                    classes.pin(labels)
            return
        rank = len(shape)
        full = [PINNED.reshape([1] * rank) if labels is None else _with_rank(labels, rank) for labels in (scale, shift)]
        self.made[value] = Tracked(compress(full[0]), compress(full[1]))

    def pin(self, value: ir.Value | None) -> None:
        """Nothing may be done to a tensor."""
        tracked = self.labels(value)
        self.scale.pin(tracked.scale)
        self.shift.pin(tracked.shift)

    def opaque(self, node: ir.Node) -> None:
        """An operator that can do with no factor: what it reads and what it writes is pinned."""
        for _, value in data_inputs(node):
            self.pin(value)
        for output in node.outputs:
            self.store(output)

    def merged(self, value: ir.Value | None, axes: Any) -> Tracked:
        """Labels after saying that they do not vary along some axes."""
        tracked = self.labels(value)
        return Tracked(merge_axes(self.scale, tracked.scale, axes), merge_axes(self.shift, tracked.shift, axes))


def _with_rank(labels: Labels, rank: int) -> Labels:
    return labels.reshape([1] * (rank - labels.ndim) + list(labels.shape))
