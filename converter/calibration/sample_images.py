"""Samples from image files, and what stands in the other inputs beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from converter.calibration.input_specs import ImageLayout, InputSpec, image_inputs
from converter.calibration.preprocess import Preprocess, apply_preprocess, open_images, picture_codes, spec_text
from converter.calibration.shuffle import shuffled
from converter.errors import CalibrationError
from converter.system.stored_feeds import in_bounded_memory

__all__ = ["ImageFeeds", "image_batches", "image_feeds", "image_row", "treatment"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ImageFeeds:
    """What a folder or zip of images gives.

    Attributes:
        feeds: in an order drawn at random.
        picture: the input that the images fill.
        found: image files in all.
        unreadable: names of those that were tried and could not be read.
        assumed: a sentence on the other inputs, which are made up, or an empty string.
    """

    feeds: Sequence[dict[str, Array]]
    picture: InputSpec
    found: int
    unreadable: list[str]
    assumed: str


def image_feeds(path: Path, inputs: Sequence[InputSpec], most: int, preprocess: Preprocess, seed: int) -> ImageFeeds:
    """Read images until there are enough of them.

    Args:
        inputs: all inputs of the model, one of which takes pictures.
        preprocess: how; of an input that takes pixel codes only the resize policy counts.

    Raises:
        CalibrationError: no input or more than one takes pictures, or there are too few that can be read.
    """
    picture, layout, beside = _filled(path, inputs)
    others = [spec for spec in inputs if spec is not picture]
    batch, readable, reasons = picture.batch, 0, list[tuple[str, str]]()
    with open_images(path) as (files, read):

        def rows() -> Iterator[Array]:
            nonlocal readable
            for index in shuffled(len(files), seed):
                if readable == most * batch:
                    break
                try:
                    row = image_row(read(files[index]), picture, layout, preprocess)
                except Exception as error:  # a damaged file makes Pillow raise anything; how many there were is told
                    text = error.what if isinstance(error, CalibrationError) else str(error)
                    reasons.append((files[index], text or type(error).__name__))
                else:
                    readable += 1
                    yield row

        stacks = map(np.stack, _in_batches(rows(), batch))
        feeds = in_bounded_memory({spec.name: stack if spec is picture else beside[spec.name] for spec in inputs} for stack in stacks)
    if not readable:
        where = f"{path}: {': '.join(reasons[0])}"
        raise CalibrationError(f"none of the {len(files)} images can be read", where=where, hint="check the files")
    if readable < batch:
        raise CalibrationError(f"the model takes {batch} images at a time, {readable} can be read", where=str(path), hint="give more")
    return ImageFeeds(feeds, picture, len(files), [file for file, _ in reasons], _assumed(others, layout))


def _in_batches(rows: Iterator[Array], batch: int) -> Iterator[list[Array]]:
    """Whole batches; what is left over is not given."""
    while len(rows_of_batch := list(islice(rows, batch))) == batch:
        yield rows_of_batch


def image_batches(path: Path, inputs: Sequence[InputSpec], preprocess: Preprocess) -> Iterator[tuple[list[str], dict[str, Array]]]:
    """Read all images in the order of their names, as many at a time as the model takes; a last batch repeats its last image.

    Args:
        path: folder or zip.
        inputs: all inputs of the model, one of which takes pictures.
        preprocess: how, as for :func:`image_feeds`.

    Yields:
        names of the images, and the feed, whose first rows they are.

    Raises:
        CalibrationError: no input or more than one takes pictures, or an image cannot be read.
    """
    picture, layout, beside = _filled(path, inputs)
    with open_images(path) as (files, read):
        for start in range(0, len(files), picture.batch):
            names = files[start : start + picture.batch]
            rows = []
            for name in names:
                try:
                    rows.append(image_row(read(name), picture, layout, preprocess))
                except Exception as error:  # as above
                    text = error.what if isinstance(error, CalibrationError) else str(error) or type(error).__name__
                    where = f"{path}: {name}"
                    raise CalibrationError(f"an image cannot be read: {text}", where=where, hint="repair or remove it") from error
            stack = np.stack([*rows, *[rows[-1]] * (picture.batch - len(rows))])
            yield names, {spec.name: stack if spec is picture else beside[spec.name] for spec in inputs}


def _filled(path: Path, inputs: Sequence[InputSpec]) -> tuple[InputSpec, ImageLayout, dict[str, Array]]:
    """The one input that takes pictures, and what the others get.

    Raises:
        CalibrationError: none or more than one does.
    """
    pictures = image_inputs(inputs)
    listed = f"use an .npz with one array for each input: {'; '.join(map(str, inputs))}"
    if len(pictures) != 1:
        what = "images fit only a model with one input that takes pictures (float or uint8, 1 or 3 channels)"
        raise CalibrationError(what, where=str(path), hint=listed)
    ((name, layout),) = pictures.items()
    picture = next(spec for spec in inputs if spec.name == name)
    return picture, layout, {spec.name: _made_up(spec, layout, listed) for spec in inputs if spec is not picture}


def image_row(image: Image.Image, spec: InputSpec, layout: ImageLayout, preprocess: Preprocess) -> Array:
    """One picture as one row of the input: [C, H, W] or [H, W, C] in the input's type.

    Raises:
        CalibrationError: see :func:`converter.calibration.preprocess.apply_preprocess`.
    """
    height, width, channels = layout.height, layout.width, layout.channels
    row: Array
    if spec.is_float:
        row = apply_preprocess(image, height, width, channels, preprocess)
    else:
        row = picture_codes(image, height, width, channels, preprocess.resize)
    return np.ascontiguousarray(row.transpose(1, 2, 0) if layout.channels_last else row, dtype=spec.dtype)


def treatment(spec: InputSpec, preprocess: Preprocess) -> str:
    """What becomes of the pixels, in words."""
    if spec.is_float:
        return f"preprocessing {spec_text(preprocess)}"
    return f"as pixel codes 0..255 (resize={preprocess.resize}; mean and std do not apply)"


def _is_size(spec: InputSpec) -> bool:
    """Pairs of integers: detectors take the size of the picture to scale their boxes."""
    return bool(np.issubdtype(spec.dtype, np.integer)) and len(spec.shape) == 2 and spec.shape[1] == 2


def _made_up(spec: InputSpec, layout: ImageLayout, hint: str) -> Array:
    """Ones, by which a mask lets everything pass and a factor changes nothing, or the size of the picture."""
    if not np.issubdtype(spec.dtype, np.number) and spec.dtype != np.bool_:
        raise CalibrationError(f"values of type {spec.dtype} cannot be made up", where=str(spec), hint=hint)
    return np.full(spec.fed_shape, (layout.height, layout.width) if _is_size(spec) else 1, spec.dtype)


def _assumed(others: Sequence[InputSpec], layout: ImageLayout) -> str:
    size = f"height and width of the picture ({layout.height}, {layout.width})"
    said = [f"{spec.name} = {size if _is_size(spec) else 'ones'}" for spec in others if not spec.is_empty]
    return f"made up beside the pictures: {'; '.join(said)}; an .npz with an array for each input decides otherwise" if said else ""
