"""What can be folded and what shall be: plain data, without a word of ONNX beyond names and indices.

A fold replaces a tensor t by t' = (t - m) / s, channel by channel, and moves s and m into constants on both sides, so
that the model computes what it did. A grid with one scale on t' is then a grid with one scale per channel on t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Fold", "Insertion", "Kind", "Member", "Scaling", "Shifting", "Site", "Uptake", "check_fold"]

Channels = npt.NDArray[np.int64]
"""Channel numbers of a site, -1 where the site changes nothing; broadcasts to the array or tensor that it is about."""

Kind = Literal["fold", "balance", "inserted"]


@dataclass(frozen=True)
class Fold:
    """What shall be done at a site: t'[c] = (t[c] - shift[c]) / scale[c].

    Attributes:
        scale: positive, one number per channel, in units of t.
        shift: one number per channel, in units of t; empty for none.
    """

    scale: tuple[float, ...]
    shift: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Member:
    """A tensor that a site rescales.

    Attributes:
        tensor: its name.
        channels: channel of each element.
        powers: 1 where elements are divided by the channel's scale, -1 where they are multiplied by it; like ``channels``.
        shifted: whether the site's shift is taken off here as well; a tensor in front of its bias is scaled only.
    """

    tensor: str
    channels: Channels
    powers: npt.NDArray[np.int64]
    shifted: bool


@dataclass(frozen=True, eq=False)
class Scaling:
    """A constant operand whose elements are multiplied by scale[channel] ** power."""

    node: str
    index: int
    channels: Channels
    powers: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Shifting:
    """A constant operand, made of zeros if it is missing, from whose elements shift[channel] is subtracted."""

    node: str
    index: int
    channels: Channels


@dataclass(frozen=True, eq=False)
class Uptake:
    """A layer's weight: its products with the shifts go to a bias, made of zeros if it is missing.

    Where the bias stands in an addition behind the layer, what the layer itself writes lacks these products.

    Attributes:
        node: the layer; its weight is operand 1.
        channels: channel that each weight is multiplied with.
        axis: of the weight, the layer's output channels.
        bias_node: where the bias is: the layer or the addition behind it.
        bias_index: which operand it is there.
    """

    node: str
    channels: Channels
    axis: int
    bias_node: str
    bias_index: int


@dataclass(frozen=True)
class Insertion:
    """A multiplication to be inserted in front of some readers of a tensor: (node name, input index)."""

    readers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Site:
    """A place where a fold is exact.

    Attributes:
        tensor: the key: a tensor that enters a layer, or the left operand of a product.
        kind: ``fold``: the key enters a layer, and constants on both sides take the fold. ``balance``: the key enters a
            product only, and its other operand is multiplied by what the key is divided by. ``inserted``: the producer
            cannot take a fold, so a multiplication is needed.
        channels: how many there are, numbered in the order in which they first occur in the key tensor.
        axis: of the key tensor, along which the channels lie; None if along several (heads and their channels).
        shift: whether a shift is exact too.
        members: every tensor that is rescaled, the key among them; none for an inserted one, which leaves all as they are.
        scalings: constants to rescale.
        shiftings: constants that give the shift.
        uptakes: layers that take it back.
        insertion: where to insert, for an inserted one.
    """

    tensor: str
    kind: Kind
    channels: int
    axis: int | None
    shift: bool = False
    members: tuple[Member, ...] = ()
    scalings: tuple[Scaling, ...] = ()
    shiftings: tuple[Shifting, ...] = ()
    uptakes: tuple[Uptake, ...] = ()
    insertion: Insertion = field(default_factory=lambda: Insertion(()))

    @property
    def inserted(self) -> bool:
        """True if a multiplication has to be inserted."""
        return self.kind == "inserted"

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all tensors that are rescaled together."""
        return tuple(member.tensor for member in self.members)


def check_fold(fold: Fold, site: Site) -> None:
    """Refuse a fold that does not fit a site.

    Raises:
        ValueError: says what is wrong with which site.
    """
    if len(fold.scale) != site.channels:
        raise ValueError(f"the fold of '{site.tensor}' has {len(fold.scale)} scales for {site.channels} channels")
    if not all(math.isfinite(s) and s > 0.0 for s in fold.scale):
        raise ValueError(f"the fold of '{site.tensor}' has a scale that is not a positive number")
    if not fold.shift:
        return
    if not site.shift:
        raise ValueError(f"the fold of '{site.tensor}' has a shift, which is not exact there")
    if len(fold.shift) != site.channels:
        raise ValueError(f"the fold of '{site.tensor}' has {len(fold.shift)} shifts for {site.channels} channels")
    if not all(math.isfinite(m) for m in fold.shift):
        raise ValueError(f"the fold of '{site.tensor}' has a shift that is not a number")
