"""What the model's inputs look like at the sizes they are calibrated with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ImageLayout", "InputSpec", "channel_axes", "feed_rows", "image_inputs", "image_layout"]


@dataclass(frozen=True)
class InputSpec:
    """One model input at the size to calibrate with.

    Attributes:
        name: the input's name in the model.
        shape: its dimensions; entry 0 is the batch and may be None for a symbolic one.
        dtype: its element type.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{','.join('?' if size is None else str(size) for size in self.shape)}]"

    @property
    def batch(self) -> int:
        """Rows in one feed: 1 unless the model fixes another number."""
        return 1 if not self.shape or self.shape[0] is None else self.shape[0]

    @property
    def fed_shape(self) -> tuple[int, ...]:
        """Shape of the array in one feed."""
        return (self.batch, *(size or 0 for size in self.shape[1:])) if self.shape else ()

    @property
    def is_empty(self) -> bool:
        """Without elements, as keys and values of the past are at a first step."""
        return 0 in self.shape

    @property
    def is_float(self) -> bool:
        """Of any floating-point type."""
        return bool(np.issubdtype(self.dtype, np.floating))


@dataclass(frozen=True)
class ImageLayout:
    """How an input holds a picture: [N, channels, height, width], or [N, height, width, channels]."""

    height: int
    width: int
    channels: int
    channels_last: bool


def image_layout(spec: InputSpec) -> ImageLayout | None:
    """How the input holds pictures, or None when it takes none.

    It does when it is floating-point or uint8, of rank 4, and has 1 or 3 channels. Floating-point pictures are
    normalised, uint8 ones are pixel codes 0..255.
    """
    if len(spec.shape) != 4 or spec.is_empty or not (spec.is_float or spec.dtype == np.uint8):
        return None
    _, first, second, third = spec.fed_shape
    if first in (1, 3):
        return ImageLayout(second, third, first, False)
    return ImageLayout(first, second, third, True) if third in (1, 3) else None


def image_inputs(inputs: Sequence[InputSpec]) -> dict[str, ImageLayout]:
    """The inputs that take pictures, by name."""
    layouts = {spec.name: image_layout(spec) for spec in inputs}
    return {name: layout for name, layout in layouts.items() if layout is not None}


def channel_axes(found: Sequence[int], wanted: Sequence[int | None]) -> tuple[int, ...] | None:
    """The transpose that puts the channels of pictures where the input has them; None if none does.

    Args:
        found: shape of a picture, or of an array of them, which has one axis more in front.
        wanted: shape of a picture in the input, without the batch.
    """
    in_front = len(found) - len(wanted)
    if len(wanted) != 3 or in_front not in (0, 1):
        return None
    transposes = (tuple(range(in_front)) + tuple(axis + in_front for axis in axes) for axes in ((2, 0, 1), (1, 2, 0)))
    return next(
        (axes for axes in transposes if all(size in (None, found[axis]) for size, axis in zip(wanted, axes[in_front:], strict=True))),
        None,
    )


def feed_rows(inputs: Sequence[InputSpec]) -> int:
    """Rows of one feed: those of the first picture, else of the first input that has elements."""
    pictures = image_inputs(inputs)
    filled = [spec for spec in inputs if not spec.is_empty]
    return next((spec.batch for spec in filled if spec.name in pictures), filled[0].batch if filled else 1)
