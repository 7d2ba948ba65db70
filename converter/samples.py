"""Calibration samples: from a folder or zip of images, from .npz or .npy arrays, or from the built-in generator.

A *sample* is one feed of the model: an array for each of its inputs, with batch size 1, or with as many rows as a
fixed batch size asks for. A part of the samples is held aside, so that the converted model is compared on data that
did not choose its scales. Which ones are taken is a seeded random choice over a sorted listing: the same everywhere,
and fair to folders sorted by class.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from converter.errors import CalibrationError, UsageError
from converter.preprocess import PRESETS, UNREADABLE, Preprocess, apply_preprocess, open_images, spec_text
from converter.synthetic import natural_images, normal_values, zeros_and_ones

__all__ = ["Feed", "InputSpec", "SampleSet", "load_samples"]

Array = npt.NDArray[Any]
Feed = dict[str, Array]
Kind = Literal["images", "arrays", "synthetic"]

SAFE_CASTS = frozenset({("float64", "float32"), ("float64", "float16"), ("float32", "float16"), ("int32", "int64")})


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


@dataclass(frozen=True, eq=False)
class SampleSet:
    """Samples to calibrate and to check with.

    Attributes:
        calibration: feeds that choose the scales; at least one.
        held_aside: feeds to compare the models on; at least one.
        kind: where they come from.
        description: one line for the report; holds no path, only the last part of one.
        skipped: images that could not be read.
        digest: sha256 over names, dtypes, shapes and bytes of the calibration samples, hexadecimal.
        shared: True when there was a single sample, which then stands in both places.

    """

    calibration: tuple[Feed, ...] = field(repr=False)
    held_aside: tuple[Feed, ...] = field(repr=False)
    kind: Kind
    description: str
    skipped: int
    digest: str
    shared: bool


def load_samples(path: Path | None, inputs: Sequence[InputSpec], *, count: int, preprocess: Preprocess | None, seed: int) -> SampleSet:
    """Collect the samples for one conversion.

    Args:
        path: a folder or .zip of images (searched recursively), an .npz with one array per input, an .npy for a model
            with one input, or None for synthetic samples. Arrays hold their samples along axis 0.
        inputs: all inputs of the model.
        count: how many rows to calibrate with at most, rounded up to whole batches when the batch size is fixed.
        preprocess: for images; None means the preset `unit`. Arrays are used as they are.
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
            example = ",".join(str(size or (1 if place == 0 else 224)) for place, size in enumerate(spec.shape))
            raise UsageError("an input has an open size", where=str(spec), hint=f"give --input-shape {spec.name}:{example} or the like")
    wanted = -(-count // _batch(inputs[0]))
    if path is None:
        return _from_generator(inputs, wanted, preprocess or PRESETS["unit"], seed)
    if not path.exists():
        raise CalibrationError("there are no calibration data at this path", where=str(path), hint="check the spelling")
    if path.is_dir() or path.suffix.lower() == ".zip":
        return _from_images(path, inputs, wanted, preprocess or PRESETS["unit"], seed)
    if path.suffix.lower() in (".npz", ".npy"):
        return _from_arrays(path, inputs, wanted, seed)
    hint = "give a folder or .zip of images, an .npz or an .npy"
    raise CalibrationError(f"calibration data of type '{path.suffix}' are not known", where=str(path), hint=hint)


def _batch(spec: InputSpec) -> int:
    """Rows of one feed."""
    return (spec.shape[0] if spec.shape else None) or 1


def _grouping(inputs: Sequence[InputSpec]) -> str:
    """Tell the reader of the description that one sample holds several rows."""
    return f" in batches of {_batch(inputs[0])}" if _batch(inputs[0]) > 1 else ""


def _most_held_aside(wanted: int) -> int:
    return max(1, min(16, wanted // 4))


def _sample_set(feeds: Sequence[Feed], wanted: int, kind: Kind, origin: str, skipped: int = 0) -> SampleSet:
    """Divide the feeds, in their order, into calibration and held-aside samples."""
    more = len(feeds) > wanted
    held = min(len(feeds) - wanted, _most_held_aside(wanted)) if more else max(1, len(feeds) // 8)
    shared = len(feeds) == 1
    calibration = tuple(feeds) if shared else tuple(feeds[: wanted if more else len(feeds) - held])
    held_aside = tuple(feeds) if shared else tuple(feeds[len(calibration) : len(calibration) + held])
    division = "1 sample for calibration and checking alike" if shared else f"{len(calibration)} for calibration, {held} held aside"
    return SampleSet(calibration, held_aside, kind, f"{origin}: {division}", skipped, _digest(calibration), shared)


def _digest(feeds: Sequence[Feed]) -> str:
    """sha256 of all arrays in a byte order that does not depend on the machine."""
    state = hashlib.sha256()
    for feed in feeds:
        for name, array in sorted(feed.items()):
            little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            state.update(f"{len(name)}:{name} {array.dtype.name} {array.shape}\n".encode())
            state.update(little.tobytes())
    return state.hexdigest()


def _shuffled(size: int, seed: int) -> list[int]:
    """0 .. size-1 in a random order that no NumPy version changes, as the raw PCG64 stream is promised to stay."""
    keys = np.asarray(np.random.PCG64(seed).random_raw(size), dtype=np.uint64)
    return [int(index) for index in np.argsort(keys, kind="stable")]


# Images


def _image_layout(spec: InputSpec) -> tuple[int, int, int, bool] | None:
    """Height, width, channels and whether channels come last, or None when the input does not take pictures."""
    if len(spec.shape) != 4 or not np.issubdtype(spec.dtype, np.floating):
        return None
    first, second, third = (size or 0 for size in spec.shape[1:])
    if first in (1, 3):
        return second, third, first, False
    return (first, second, third, True) if third in (1, 3) else None


def _image_row(image: Image.Image, spec: InputSpec, layout: tuple[int, int, int, bool], preprocess: Preprocess) -> Array:
    """One picture as one row of the input, [C, H, W] or [H, W, C]."""
    height, width, channels, channels_last = layout
    row = apply_preprocess(image, height, width, channels, preprocess)
    return np.ascontiguousarray(row.transpose(1, 2, 0) if channels_last else row, dtype=spec.dtype)


def _from_images(path: Path, inputs: Sequence[InputSpec], wanted: int, preprocess: Preprocess, seed: int) -> SampleSet:
    spec, layout = inputs[0], _image_layout(inputs[0])
    if len(inputs) != 1 or layout is None:
        hint = f"use an .npz with one array for each input: {'; '.join(map(str, inputs))}"
        raise CalibrationError(
            "images fit only a model whose one input takes pictures (float, 1 or 3 channels)", where=str(path), hint=hint
        )
    batch, rows, reasons = _batch(spec), list[Array](), list[tuple[str, str]]()
    most_rows = (wanted + _most_held_aside(wanted)) * batch
    with open_images(path) as (names, read):
        for index in _shuffled(len(names), seed):
            if len(rows) == most_rows:
                break
            try:
                rows.append(_image_row(read(names[index]), spec, layout, preprocess))
            except UNREADABLE as error:
                text = error.what if isinstance(error, CalibrationError) else str(error)
                reasons.append((names[index], text or type(error).__name__))
    if not rows:
        raise CalibrationError(
            f"none of the {len(names)} images can be read", where=f"{path}: {': '.join(reasons[0])}", hint="check the files"
        )
    if len(rows) < batch:
        raise CalibrationError(f"the model takes {batch} images at a time, {len(rows)} can be read", where=str(path), hint="give more")
    feeds = [{spec.name: np.stack(rows[start : start + batch])} for start in range(0, len(rows) - batch + 1, batch)]
    skipped = f", {len(reasons)} unreadable skipped, the first is {reasons[0][0]}" if reasons else ""
    origin = f"images from {path.name} ({len(names)} found{skipped}), preprocessing {spec_text(preprocess)}"
    return _sample_set(feeds, wanted, "images", origin + _grouping(inputs), len(reasons))


# Arrays


def _from_arrays(path: Path, inputs: Sequence[InputSpec], wanted: int, seed: int) -> SampleSet:
    arrays = _read_arrays(path)
    names = [spec.name for spec in inputs]
    if len(inputs) == len(arrays) == 1:
        arrays = {names[0]: next(iter(arrays.values()))}
    for name in names:
        if name not in arrays:
            near = difflib.get_close_matches(name, arrays, n=3, cutoff=0.4)
            found = f"near names in the file: {', '.join(near)}" if near else f"the file holds: {', '.join(arrays) or 'nothing'}"
            hint = f"{found}; name one array after each input: {'; '.join(map(str, inputs))}"
            raise CalibrationError(f"there is no array for the input '{name}'", where=str(path), hint=hint)
    extra = [name for name in arrays if name not in names]
    if extra:
        hint = f"the inputs are: {'; '.join(map(str, inputs))}"
        raise CalibrationError(f"the model has no input for: {', '.join(extra)}", where=str(path), hint=hint)
    stacks = {spec.name: _stacked(arrays[spec.name], spec, path) for spec in inputs}
    sizes = {name: len(stack) for name, stack in stacks.items()}
    if len(set(sizes.values())) > 1:
        raise CalibrationError("the arrays hold different numbers of samples", where=str(path), hint=str(sizes))
    for spec in inputs:
        for index, values in enumerate(stacks[spec.name]):
            _check_finite(_cast(values, spec), spec, index, path)
    total = sizes[names[0]]
    chosen = _shuffled(total, seed)[: wanted + _most_held_aside(wanted)]
    feeds = [{spec.name: _cast(stacks[spec.name][index], spec) for spec in inputs} for index in chosen]
    return _sample_set(feeds, wanted, "arrays", f"arrays from {path.name} ({total} found), used as they are{_grouping(inputs)}")


def _read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an .npz or .npy. Nothing is ever unpickled, as that would run code found in the file."""
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray) != (path.suffix.lower() == ".npy"):
            raise ValueError("an .npz holds an archive of arrays, an .npy a single array; the name and the contents differ")
        if isinstance(loaded, np.ndarray):
            return {"": np.atleast_1d(loaded)}
        with loaded as archive:
            return {name: np.atleast_1d(archive[name]) for name in archive.files}
    except (*UNREADABLE, MemoryError) as error:
        hint = "write it with numpy.savez or numpy.save; arrays of Python objects are not accepted"
        raise CalibrationError(f"the {path.suffix} file cannot be read", where=f"{path}: {error}", hint=hint) from error


def _stacked(array: Array, spec: InputSpec, path: Path) -> Array:
    """Check that an array fits its input and view it as [samples, rows of one feed, ...], in its own type."""
    where, batch, row_shape = f"array for input {spec.name} in {path}", _batch(spec), tuple(spec.shape[1:])
    if array.dtype.newbyteorder("=") != spec.dtype and (array.dtype.name, spec.dtype.name) not in SAFE_CASTS:
        hint = f"convert it, for instance with .astype('{spec.dtype}'), after scaling it as the model expects"
        raise CalibrationError(f"expected {spec.dtype}, found {array.dtype}", where=where, hint=hint)
    if array.shape[1:] != row_shape:
        expected = ",".join(["N", *map(str, row_shape)])
        hint = "samples stand along the first axis" + (", also a single one" if array.shape == row_shape else "")
        raise CalibrationError(f"expected shape [{expected}], found {list(array.shape)}", where=where, hint=hint)
    if len(array) < batch:
        raise CalibrationError(
            f"expected {batch} samples or more, found {len(array)}", where=where, hint="add samples along the first axis"
        )
    if len(array) % batch:
        hint = "add or remove samples along the first axis"
        raise CalibrationError(f"expected a multiple of the batch size {batch}, found {len(array)} samples", where=where, hint=hint)
    return array.reshape(-1, *([batch] if spec.shape else []), *row_shape)


def _cast(values: Array, spec: InputSpec) -> Array:
    """Copy in the input's type and the machine's byte order; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=spec.dtype, order="C")


def _check_finite(values: Array, spec: InputSpec, index: int, path: Path) -> None:
    if np.issubdtype(spec.dtype, np.floating) and not np.isfinite(values).all():
        bad_row = int(np.flatnonzero(~np.isfinite(values.reshape(_batch(spec), -1)).all(axis=1))[0])
        where = f"array for input {spec.name} in {path}, sample {index * _batch(spec) + bad_row}"
        raise CalibrationError(
            "the data hold NaN or infinity", where=where, hint=f"remove or repair it; {spec.dtype} must hold every value"
        )


# Synthetic


def _from_generator(inputs: Sequence[InputSpec], wanted: int, preprocess: Preprocess, seed: int) -> SampleSet:
    total = wanted + _most_held_aside(wanted)
    columns = {spec.name: _generated(spec, total, preprocess, seed + place) for place, spec in enumerate(inputs)}
    feeds = [{name: np.asarray(column[index]) for name, column in columns.items()} for index in range(total)]
    pictures = any(_image_layout(spec) for spec in inputs)
    origin = f"synthetic images, preprocessing {spec_text(preprocess)}" if pictures else "synthetic numbers"
    return _sample_set(feeds, wanted, "synthetic", f"{origin} (no calibration data were given){_grouping(inputs)}")


def _generated(spec: InputSpec, total: int, preprocess: Preprocess, seed: int) -> Array:
    """Make up samples of one input, [total, ...]: pictures, standard normal numbers, or zeros and ones for integers."""
    layout, batch = _image_layout(spec), _batch(spec)
    shape = (total, *([batch] if spec.shape else []), *(size or 1 for size in spec.shape[1:]))
    if layout:
        pictures = natural_images(total * batch, layout[0], layout[1], seed)
        rows = [_image_row(Image.fromarray(picture), spec, layout, preprocess) for picture in pictures]
        return np.stack(rows).reshape(shape)
    if np.issubdtype(spec.dtype, np.floating):
        return normal_values(shape, seed).astype(spec.dtype)
    if np.issubdtype(spec.dtype, np.integer) or spec.dtype == np.bool_:
        return zeros_and_ones(shape, seed).astype(spec.dtype)
    hint = "give --calib an .npz with an array for each input"
    raise CalibrationError(f"samples of type {spec.dtype} cannot be made up", where=str(spec), hint=hint)
