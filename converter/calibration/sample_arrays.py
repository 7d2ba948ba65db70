"""Samples from arrays, in NumPy files or in memory."""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.calibration.array_files import ArrayStore, StoredArray
from converter.calibration.input_specs import InputSpec, channel_axes, image_layout
from converter.calibration.shuffle import shuffled
from converter.errors import CalibrationError

__all__ = ["array_feeds"]

Array = npt.NDArray[Any]


def array_feeds(store: ArrayStore, inputs: Sequence[InputSpec], most: int, seed: int) -> tuple[tuple[dict[str, Array], ...], int]:
    """Choose samples at random; all are read and checked, and only these kept.

    Args:
        store: with samples along axis 0.
        inputs: all inputs of the model; those without elements need no array.

    Returns:
        The feeds, in the order of the choice, and how many there were to choose from.

    Raises:
        CalibrationError: a file is damaged, or the arrays do not fit the inputs.
    """
    arrays = store.arrays
    needed = [spec for spec in inputs if not spec.is_empty]
    single = len(needed) == len(arrays) == 1
    entries = {needed[0].name: next(iter(arrays))} if single else {name: name for name in arrays}
    _check_names(store.where, inputs, needed, entries)
    counts = {spec.name: _samples_in(arrays[entries[spec.name]], spec, store.where) for spec in inputs if spec.name in entries}
    counts = {spec.name: counts[spec.name] for spec in needed}
    if len(set(counts.values())) > 1:
        raise CalibrationError("the arrays hold different numbers of samples", where=store.where, hint=str(counts))
    total = next(iter(counts.values()), 1)
    chosen = shuffled(total, seed)[:most]
    columns = {spec.name: _column(store, entries.get(spec.name, ""), spec, chosen) for spec in inputs}
    return tuple({name: column[place] for name, column in columns.items()} for place in range(len(chosen))), total


def _check_names(where: str, inputs: Sequence[InputSpec], needed: Sequence[InputSpec], entries: dict[str, str]) -> None:
    listed = "; ".join(map(str, inputs))
    for name in (spec.name for spec in needed):
        if name not in entries:
            near = difflib.get_close_matches(name, entries, n=3, cutoff=0.4)
            found = f"near names there: {', '.join(near)}" if near else f"there are: {', '.join(entries) or 'nothing'}"
            hint = f"{found}; name one array after each input: {listed}"
            raise CalibrationError(f"there is no array for the input '{name}'", where=where, hint=hint)
    extra = entries.keys() - {spec.name for spec in inputs}
    if extra:
        what = f"the model has no input for: {', '.join(sorted(extra))}"
        raise CalibrationError(what, where=where, hint=f"the inputs are: {listed}")


def _samples_in(array: StoredArray, spec: InputSpec, store: str) -> int:
    """How many samples an array holds, once it is known to fit its input."""
    where, batch, row_shape = f"array for input {spec.name} in {store}", spec.batch, tuple(spec.shape[1:])
    if not _is_castable(array.dtype.newbyteorder("="), spec.dtype):
        hint = f"convert it, for instance with .astype('{spec.dtype}'), after scaling it as the model expects"
        raise CalibrationError(f"expected {spec.dtype}, found {array.dtype}", where=where, hint=hint)
    if array.shape[1:] != row_shape:
        expected = ",".join(["N", *map(str, row_shape)])
        hint = "samples stand along the first axis" + (", also a single one" if array.shape == row_shape else "")
        axes = channel_axes(array.shape, row_shape) if len(array.shape) == len(spec.shape) else None
        hint = hint if axes is None else f"the channels stand elsewhere: write it again after .transpose{axes}"
        raise CalibrationError(f"expected shape [{expected}], found {list(array.shape)}", where=where, hint=hint)
    rows = array.shape[0]
    if spec.is_empty:
        return 0
    if rows < batch:
        raise CalibrationError(f"expected {batch} samples or more, found {rows}", where=where, hint="add samples along the first axis")
    if rows % batch:
        hint = "add or remove samples along the first axis"
        raise CalibrationError(f"expected a multiple of the batch size {batch}, found {rows} samples", where=where, hint=hint)
    return rows // batch


def _is_castable(found: np.dtype[Any], expected: np.dtype[Any]) -> bool:
    """Whether numbers keep their meaning; floating-point ones that do not fit are found when they are read."""
    floats = np.issubdtype(found, np.floating) and np.issubdtype(expected, np.floating)
    return bool(found == expected or floats or (found.name, expected.name) == ("int32", "int64"))


def _column(store: ArrayStore, entry: str, spec: InputSpec, chosen: Sequence[int]) -> list[Array]:
    """One input of the chosen samples, each of which may hold several rows of the array."""
    if spec.is_empty:
        return [np.zeros(spec.fed_shape, spec.dtype) for _ in chosen]
    start, kept = 0, dict[int, Array]()
    wanted = sorted(index * spec.batch + row for index in chosen for row in range(spec.batch))
    for block in store.blocks(entry):
        with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused
            values = np.asarray(block, dtype=spec.dtype)
        _check_numbers(block, values, spec, start, store.where)
        end = start + len(values)
        kept |= {row: np.array(values[row - start], order="C") for row in wanted[bisect_left(wanted, start) : bisect_left(wanted, end)]}
        start = end
    if not spec.shape:
        return [kept[index] for index in chosen]
    return [np.stack([kept[index * spec.batch + row] for row in range(spec.batch)]) for index in chosen]


def _check_numbers(found: Array, values: Array, spec: InputSpec, start: int, store: str) -> None:
    """Refuse NaN, and what the input's type cannot hold. Infinity is what masks are made of, but no colour."""
    if not spec.is_float:
        return
    layout = image_layout(spec)
    infinite = np.isinf(values)
    for bad, what, hint in (
        (np.isnan(values), "the data hold NaN", "remove or repair it"),
        (infinite & np.isfinite(found), f"the data hold numbers beyond {spec.dtype}", f"{spec.dtype} must hold every value"),
        (infinite & (layout is not None and layout.channels == 3), "the pictures hold infinity", "remove or repair it"),
    ):
        if bad.any():
            row = start + int(np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))[0])
            raise CalibrationError(what, where=f"array for input {spec.name} in {store}, sample {row}", hint=hint)
