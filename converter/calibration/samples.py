"""Calibration samples: from a folder or zip of images, from .npz or .npy arrays, or from the built-in generator.

A *sample* is one feed of the model: an array for each of its inputs, with batch size 1, or with as many rows as a
fixed batch size asks for. A part of the samples is held aside, so that the converted model is compared on data that
did not choose its scales. Which ones are taken is a seeded random choice over a sorted listing: the same everywhere,
and fair to folders sorted by class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from converter.calibration.array_files import ARRAY_SUFFIXES, ArrayStore, array_file
from converter.calibration.calibration_files import check_calibration_path
from converter.calibration.given_samples import with_pictures_normalised
from converter.calibration.input_specs import ImageLayout, InputSpec, feed_rows, image_layout
from converter.calibration.preprocess import IMAGE_SUFFIXES, PRESETS, Preprocess, spec_text
from converter.calibration.sample_arrays import array_feeds
from converter.calibration.sample_doubts import doubts, unscaled_pictures
from converter.calibration.sample_images import image_feeds, image_row, treatment
from converter.calibration.synthetic_images import natural_image, normal_values, zeros_and_ones
from converter.errors import CalibrationError, UsageError
from converter.system.stored_feeds import in_bounded_memory

__all__ = ["Feed", "InputSpec", "SampleSet", "load_samples"]

Array = npt.NDArray[Any]
Feed = dict[str, Array]
Kind = Literal["images", "arrays", "synthetic"]

_UNIT = PRESETS["unit"]
_SCALED = (
    "nothing says how pictures become inputs: they were scaled to 0..1; if the network was trained on other numbers, give --preprocess"
)

_KINDS = "give a folder or .zip of images, an .npz or an .npy"


@dataclass(frozen=True, eq=False)
class SampleSet:
    """Samples to calibrate and to check with.

    Attributes:
        calibration: feeds that choose the scales; at least one. Many images are in a file, and read from it one by one.
        held_aside: feeds to compare the models on; at least one.
        kind: where they come from.
        description: one line for the report; holds no path, only the last part of one.
        skipped: images that could not be read.
        digest: sha256 over names, dtypes, shapes and bytes of the calibration samples, hexadecimal.
        shared: True when there was a single sample, which then stands in both places.
        assumed: sentences on what nobody has said: how pictures become inputs, and what stands beside them.
        doubts: sentences on why the calibration samples may say nothing about other data.
    """

    calibration: Sequence[Feed] = field(repr=False)
    held_aside: tuple[Feed, ...] = field(repr=False)
    kind: Kind
    description: str
    skipped: int
    digest: str
    shared: bool
    assumed: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def load_samples(
    calib: Path | ArrayStore | None, inputs: Sequence[InputSpec], *, count: int, preprocess: Preprocess | None, seed: int
) -> SampleSet:
    """Collect the samples for one conversion.

    Args:
        calib: a folder or .zip of images (searched recursively) for a model with one input that takes pictures, an .npz
            with one array per input, an .npy for a model with one input, arrays from
            :func:`converter.calibration.given_samples.given_arrays`, or None for synthetic samples. Arrays hold their
            samples along axis 0. Inputs without elements need none.
        count: how many rows to calibrate with at most, rounded up to whole batches when the batch size is fixed.
        preprocess: for images; None means the preset `unit`. Of inputs that take pixel codes only its resize policy
            counts. Arrays are used as they are, except that uint8 pictures that are given for an input of float ones are scaled.
        seed: of the random choice and of the synthetic samples.

    Returns:
        Beyond the calibration samples up to a quarter as many (at most 16) are held aside; when the source has no
        more than `count`, an eighth of it is (at least one).

    Raises:
        CalibrationError: the data is missing, damaged, or does not fit the inputs.
        UsageError: `count` is not positive, or an input has an open size other than the batch.
    """
    if count < 1:
        raise UsageError("at least one calibration sample is needed", where=f"count {count}", hint="ask for 1 or more, 64 is a good start")
    if not inputs:
        raise CalibrationError("the model has no inputs, so there is nothing to calibrate")
    for spec in inputs:
        if None in spec.shape[1:]:
            example = ",".join(str((1 if place == 0 else 224) if size is None else size) for place, size in enumerate(spec.shape))
            raise UsageError("an input has an open size", where=str(spec), hint=f"give --input-shape {spec.name}:{example} or the like")
    wanted = -(-count // feed_rows(inputs))
    if calib is None:
        return _from_generator(inputs, wanted, preprocess or _UNIT, seed)
    if isinstance(calib, ArrayStore):
        return _from_given(calib, inputs, wanted, preprocess, seed)
    check_calibration_path(calib)
    if calib.is_dir() or calib.suffix.lower() == ".zip":
        return _from_images(calib, inputs, wanted, preprocess, seed)
    if calib.suffix.lower() in ARRAY_SUFFIXES:
        return _from_arrays(array_file(calib), f"arrays from {calib.name}", "used as they are", inputs, wanted, seed)
    hint = f"give the folder of the pictures: {calib.parent}" if calib.suffix.lower() in IMAGE_SUFFIXES else _KINDS
    raise CalibrationError(f"calibration data of type '{calib.suffix}' are not known", where=str(calib), hint=hint)


def _grouping(inputs: Sequence[InputSpec]) -> str:
    """Tell the reader of the description that one sample holds several rows."""
    return f" in batches of {feed_rows(inputs)}" if feed_rows(inputs) > 1 else ""


def _most_held_aside(wanted: int) -> int:
    return max(1, min(16, wanted // 4))


def _sample_set(feeds: Sequence[Feed], wanted: int, kind: Kind, origin: str) -> SampleSet:
    """Divide the feeds, in their order, into calibration and held-aside samples."""
    more = len(feeds) > wanted
    held = min(len(feeds) - wanted, _most_held_aside(wanted)) if more else max(1, len(feeds) // 8)
    shared = len(feeds) == 1
    calibration = feeds if shared else feeds[: wanted if more else len(feeds) - held]
    held_aside = tuple(feeds) if shared else tuple(feeds[len(calibration) : len(calibration) + held])
    division = "1 sample for calibration and checking alike" if shared else f"{len(calibration)} for calibration, {held} held aside"
    return SampleSet(calibration, held_aside, kind, f"{origin}: {division}", 0, _digest(calibration), shared)


def _digest(feeds: Sequence[Feed]) -> str:
    """sha256 of all arrays in a byte order that does not depend on the machine."""
    state = hashlib.sha256()
    for feed in feeds:
        for name, array in sorted(feed.items()):
            little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            state.update(f"{len(name)}:{name} {array.dtype.name} {array.shape}\n".encode())
            state.update(little.tobytes())
    return state.hexdigest()


def _from_images(path: Path, inputs: Sequence[InputSpec], wanted: int, stated: Preprocess | None, seed: int) -> SampleSet:
    preprocess = stated or _UNIT
    read = image_feeds(path, inputs, wanted + _most_held_aside(wanted), preprocess, seed)
    skipped = f", {len(read.unreadable)} unreadable skipped, the first is {read.unreadable[0]}" if read.unreadable else ""
    origin = f"images from {path.name} ({read.found} found{skipped}), {treatment(read.picture, preprocess)}{_grouping(inputs)}"
    samples = _sample_set(read.feeds, wanted, "images", origin)
    found = doubts(samples.calibration, [read.picture])
    assumed = (*([_SCALED] if stated is None and read.picture.is_float else []), *([read.assumed] if read.assumed else []))
    return replace(samples, skipped=len(read.unreadable), assumed=assumed, doubts=found)


def _from_given(store: ArrayStore, inputs: Sequence[InputSpec], wanted: int, stated: Preprocess | None, seed: int) -> SampleSet:
    preprocess = stated or _UNIT
    scaled = with_pictures_normalised(store, inputs, preprocess)
    kept = all(scaled.arrays[name].dtype == array.dtype for name, array in store.arrays.items())
    use = "used as they are" if kept else f"preprocessing {spec_text(preprocess)}"
    samples = _from_arrays(scaled, "given arrays", use, inputs, wanted, seed)
    return samples if kept or stated is not None else replace(samples, assumed=(_SCALED, *samples.assumed))


def _from_arrays(store: ArrayStore, origin: str, use: str, inputs: Sequence[InputSpec], wanted: int, seed: int) -> SampleSet:
    feeds, total = array_feeds(store, inputs, wanted + _most_held_aside(wanted), seed)
    samples = _sample_set(feeds, wanted, "arrays", f"{origin} ({total} found), {use}{_grouping(inputs)}")
    return replace(samples, assumed=unscaled_pictures(samples.calibration, inputs), doubts=doubts(samples.calibration, inputs))


def _from_generator(inputs: Sequence[InputSpec], wanted: int, preprocess: Preprocess, seed: int) -> SampleSet:
    total = wanted + _most_held_aside(wanted)
    columns = {spec.name: _generated(spec, total, preprocess, seed + place) for place, spec in enumerate(inputs)}
    feeds = in_bounded_memory({name: np.asarray(next(column)) for name, column in columns.items()} for _ in range(total))
    treatments = dict.fromkeys(treatment(spec, preprocess) for spec in inputs if image_layout(spec) is not None)
    origin = f"synthetic images, {' and '.join(treatments)}" if treatments else "synthetic numbers"
    return _sample_set(feeds, wanted, "synthetic", f"{origin} (no calibration data were given){_grouping(inputs)}")


def _generated(spec: InputSpec, total: int, preprocess: Preprocess, seed: int) -> Iterator[Array]:
    """Make up samples of one input, one by one: pictures, standard normal numbers, or zeros and ones for integers."""
    layout, shape = image_layout(spec), (total, *spec.fed_shape)
    if layout is not None:
        return _pictures(spec, layout, total, preprocess, seed)
    if spec.is_float:
        return iter(normal_values(shape, seed).astype(spec.dtype))
    if np.issubdtype(spec.dtype, np.integer) or spec.dtype == np.bool_:
        return iter(zeros_and_ones(shape, seed).astype(spec.dtype))
    hint = "give --calib an .npz with an array for each input"
    raise CalibrationError(f"samples of type {spec.dtype} cannot be made up", where=str(spec), hint=hint)


def _pictures(spec: InputSpec, layout: ImageLayout, total: int, preprocess: Preprocess, seed: int) -> Iterator[Array]:
    for index in range(total):
        pictures = (natural_image(index * spec.batch + row, layout.height, layout.width, seed) for row in range(spec.batch))
        rows = [image_row(Image.fromarray(picture), spec, layout, preprocess) for picture in pictures]
        yield np.stack(rows).reshape(spec.fed_shape)
