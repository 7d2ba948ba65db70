"""What can be equalized and what shall be: plain data, without a word of ONNX beyond names and indices.

An equalization replaces a tensor t by t' = (t - m) / s, channel by channel, and moves s and m into constants on both sides, so
that the model computes what it did. A grid with one scale on t' is then a grid with one scale per channel on t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["BiasAbsorption", "Equalization", "EqualizationSite", "Insertion", "Kind", "Member", "Scaling", "Shifting", "check_equalization"]

Channels = npt.NDArray[np.int64]
"""Channel numbers of a site, -1 where the site changes nothing; broadcasts to the array or tensor that it is about."""

Kind = Literal["cross_layer", "query_key", "per_channel_quantize"]


@dataclass(frozen=True)
class Equalization:
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
class BiasAbsorption:
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
class EqualizationSite:
    """A place where an equalization is exact.

    Attributes:
        tensor: the key: a tensor that enters a layer, or the left operand of a product.
        kind: ``cross_layer``: the key enters a layer, and constants on both sides take the equalization. ``query_key``: the key enters a
            product only, and its other operand is multiplied by what the key is divided by. ``per_channel_quantize``: the producer
            cannot take an equalization, so a multiplication is needed.
        channels: how many there are, numbered in the order in which they first occur in the key tensor.
        axis: of the key tensor, along which the channels lie; None if along several (heads and their channels).
        shift: whether a shift is exact too.
        members: every tensor that is rescaled, the key among them; none for an inserted one, which leaves all as they are.
        scalings: constants to rescale.
        shiftings: constants that give the shift.
        absorptions: layers that take it back.
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
    absorptions: tuple[BiasAbsorption, ...] = ()
    insertion: Insertion = field(default_factory=lambda: Insertion(()))

    @property
    def inserted(self) -> bool:
        """True if a multiplication has to be inserted."""
        return self.kind == "per_channel_quantize"

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all tensors that are rescaled together."""
        return tuple(member.tensor for member in self.members)


def check_equalization(equalization: Equalization, site: EqualizationSite) -> None:
    """Refuse an equalization that does not fit a site.

    Raises:
        ValueError: says what is wrong with which site.
    """
    if len(equalization.scale) != site.channels:
        raise ValueError(f"the equalization of '{site.tensor}' has {len(equalization.scale)} scales for {site.channels} channels")
    if not all(math.isfinite(s) and s > 0.0 for s in equalization.scale):
        raise ValueError(f"the equalization of '{site.tensor}' has a scale that is not a positive number")
    if not equalization.shift:
        return
    if not site.shift:
        raise ValueError(f"the equalization of '{site.tensor}' has a shift, which is not exact there")
    if len(equalization.shift) != site.channels:
        raise ValueError(f"the equalization of '{site.tensor}' has {len(equalization.shift)} shifts for {site.channels} channels")
    if not all(math.isfinite(m) for m in equalization.shift):
        raise ValueError(f"the equalization of '{site.tensor}' has a shift that is not a number")
