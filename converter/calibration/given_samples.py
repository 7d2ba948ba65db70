"""Samples that a program hands over: an iterable of arrays, or of dicts of arrays by input name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.calibration.array_files import ArrayStore, StoredArray
from converter.calibration.input_specs import InputSpec, channel_axes, feed_rows, image_layout
from converter.calibration.preprocess import Preprocess, normalised
from converter.errors import CalibrationError
from converter.load.model import ValueInfo

__all__ = ["GIVEN", "given_arrays", "with_pictures_normalised"]

Array = npt.NDArray[Any]

GIVEN = "the given calibration data"


def given_arrays(items: Iterable[Any], inputs: Sequence[ValueInfo], samples: int) -> ArrayStore:
    """Collect samples, and take no more of them than needed.

    Args:
        items: each an array, where one input needs data, or a dict of arrays by input name. An array of the input's rank is a
            batch of one row or more; one of a rank lower is a single row, without the batch axis.
        samples: rows to collect at most, rounded up to whole batches where the batch size is fixed.

    Returns:
        what was collected, like a file with an array for each input.

    Raises:
        CalibrationError: there is no sample, or one is not as expected.
    """
    specs = {v.name: InputSpec(v.name, tuple(d if isinstance(d, int) else None for d in v.shape), v.dtype) for v in inputs}
    feeds = -(-samples // feed_rows(list(specs.values())))
    rows: dict[str, list[Array]] = {}
    try:
        iterator = iter(items)
    except TypeError as error:
        raise _refusal(f"{type(items).__name__} gives no samples", specs.values()) from error
    for item in iterator:
        feed = item if isinstance(item, Mapping) else {_single(specs): item}
        if not feed.keys() <= specs.keys() or (rows and feed.keys() != rows.keys()):
            raise _refusal(f"a sample has arrays for {', '.join(map(str, feed)) or 'no input'}", specs.values())
        for name, value in feed.items():
            rows.setdefault(name, []).extend(_rows(value, specs[name], rows.get(name, [])[:1]))
        if rows and all(len(found) >= feeds * specs[name].batch for name, found in rows.items()):
            break
    if not rows:
        raise CalibrationError(f"{GIVEN} are empty", hint="give one sample or more; an iterator gives its samples only once")
    arrays = {name: np.stack(found[: feeds * specs[name].batch]) for name, found in rows.items()}
    return _store(arrays)


def with_pictures_normalised(store: ArrayStore, inputs: Sequence[InputSpec], preprocess: Preprocess) -> ArrayStore:
    """Scale uint8 pictures for inputs that take float ones, as images from files are scaled; they keep their size."""
    arrays = {name: np.concatenate(list(store.blocks(name))) for name in store.arrays}
    for spec in inputs:
        layout = image_layout(spec)
        if layout is not None and spec.is_float and spec.name in arrays and arrays[spec.name].dtype == np.uint8:
            axis = -1 if layout.channels_last else 1
            scaled = normalised(np.moveaxis(arrays[spec.name], axis, -1), preprocess)
            arrays[spec.name] = np.moveaxis(scaled, -1, axis)
    return _store(arrays)


def _store(arrays: Mapping[str, Array]) -> ArrayStore:
    return ArrayStore(GIVEN, {n: StoredArray(a.shape, a.dtype, False) for n, a in arrays.items()}, lambda name: iter((arrays[name],)))


def _single(specs: Mapping[str, InputSpec]) -> str:
    needed = [spec for spec in specs.values() if not spec.is_empty]
    if len(needed) != 1:
        raise _refusal("the model has several inputs, and a sample is no dict", specs.values())
    return needed[0].name


def _rows(value: Any, spec: InputSpec, before: Sequence[Array]) -> Sequence[Array]:
    """The rows of one item, [...] each, of the same shape and type as those before."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # the last is torch's
        raise _refusal(f"a sample of input '{spec.name}' is no array: {error}", [spec]) from error
    if array.dtype.kind not in "biuf":
        raise _refusal(f"a sample of input '{spec.name}' is no array of numbers: {type(value).__name__}", [spec])
    rank = max(1, len(spec.shape))
    rows = array[np.newaxis] if array.ndim == rank - 1 else array
    fits = rows.ndim == rank and all(size in (None, found) for size, found in zip(spec.shape[1:], rows.shape[1:], strict=True))
    if not fits or not len(rows):
        what, axes = f"a sample of input '{spec.name}' has shape {list(array.shape)}", channel_axes(array.shape, spec.shape[1:])
        if axes is not None:
            hint = f"the channels stand elsewhere: {spec} takes each sample after .transpose{axes}"
            raise CalibrationError(what, where=GIVEN, hint=hint)
        raise _refusal(what, [spec])
    if before and (before[0].shape, before[0].dtype) != (rows.shape[1:], rows.dtype):
        found = f"{before[0].dtype}{list(before[0].shape)} and {rows.dtype}{list(rows.shape[1:])}"
        raise _refusal(f"samples of input '{spec.name}' differ: {found}", [spec])
    return list(rows)


def _refusal(what: str, specs: Iterable[InputSpec]) -> CalibrationError:
    expected = "; ".join(map(str, specs))
    return CalibrationError(what, where=GIVEN, hint=f"give arrays as the model takes them, with or without the first axis: {expected}")
