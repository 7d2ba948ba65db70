"""Whether calibration samples say anything about other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.calibration.input_specs import ImageLayout, InputSpec, image_inputs, image_layout

__all__ = ["doubts", "unscaled_pictures"]

Array = npt.NDArray[Any]

_MOST_OF_PIXELS = 255
_MOST_SCALED = 10
"""What pictures that are scaled for a network stay below: pixels divided by the smallest deviation in use, 0.2, reach 5."""


def doubts(feeds: Sequence[Mapping[str, Array]], inputs: Sequence[InputSpec]) -> tuple[str, ...]:
    """Find what makes samples useless, as ranges that were seen on them hold for nothing else.

    Args:
        feeds: the calibration samples; at least one.
        inputs: those that were given, not the made-up ones.

    Returns:
        A sentence each on samples that are all equal, on inputs that hold one number or colour a sample, and on pixel
        codes that look like numbers from 0 to 1.
    """
    filled = [spec for spec in inputs if not spec.is_empty]
    numbers = [spec for spec in filled if spec.is_float or spec.dtype == np.uint8]
    found: list[str] = []
    if len(feeds) > 1 and filled and all(_all_equal(feeds, spec.name) for spec in numbers or filled):
        found.append(f"all {len(feeds)} calibration samples are equal: they say nothing about other data")
    pictures = _pictures(numbers)
    for spec in pictures or numbers:
        if all(_holds_one_number(feed[spec.name], image_layout(spec)) for feed in feeds):
            what = "one colour only, as a black picture does" if spec in pictures else "one number only"
            found.append(f"each calibration sample of input '{spec.name}' holds {what}")
        elif spec in pictures and spec.dtype == np.uint8 and all(feed[spec.name].max() <= 1 for feed in feeds):
            found.append(f"the calibration samples of the uint8 input '{spec.name}' never exceed 1: pixel codes reach 255")
    return tuple(found)


def unscaled_pictures(feeds: Sequence[Mapping[str, Array]], inputs: Sequence[InputSpec]) -> tuple[str, ...]:
    """Find arrays for inputs of float pictures that hold pixels 0..255, as most networks do not take them.

    Args:
        feeds: the calibration samples; at least one.
        inputs: all of them.

    Returns:
        A sentence for each such input. Networks that scale pixels themselves are right to be given them, so it is no doubt.
    """
    return tuple(
        f"arrays for input '{name}' hold pixels, whole numbers from 0 to 255: if the network was trained on scaled ones, scale them first"
        for name in image_inputs([spec for spec in inputs if spec.is_float])
        if all(_holds_pixels(feed[name]) for feed in feeds) and any(feed[name].max() > _MOST_SCALED for feed in feeds)
    )


def _holds_pixels(array: Array) -> bool:
    return bool(array.min() >= 0 and array.max() <= _MOST_OF_PIXELS and (array == np.rint(array)).all())


def _pictures(inputs: Sequence[InputSpec]) -> list[InputSpec]:
    """Those that take pictures with most channels: a plane beside a colour picture is a mask, which may well be constant."""
    layouts = image_inputs(inputs)
    most = max((layout.channels for layout in layouts.values()), default=0)
    return [spec for spec in inputs if spec.name in layouts and layouts[spec.name].channels == most]


def _all_equal(feeds: Sequence[Mapping[str, Array]], name: str) -> bool:
    first = feeds[0][name]
    return all(np.array_equal(first, feed[name]) for feed in feeds[1:])


def _holds_one_number(array: Array, layout: ImageLayout | None) -> bool:
    """True when all elements of a row are equal, or of a picture's channel. A single element is a number of its own."""
    if layout is not None:
        planes = array.transpose(0, 3, 1, 2) if layout.channels_last else array
        rows = planes.reshape(len(array) * layout.channels, -1)
    else:
        rows = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
    return rows.shape[1] > 1 and bool((rows == rows[:, :1]).all())
