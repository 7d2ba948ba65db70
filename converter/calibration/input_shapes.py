"""Sizes of the model's inputs during calibration, where the model leaves them open.

Sizes come, in this order, from ``--input-shape``, from the calibration arrays, and from trying usual image sizes until
one runs. The emitted model keeps its open dimensions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from converter.calibration.array_files import ARRAY_SUFFIXES, ArrayStore, array_file
from converter.calibration.calibration_files import check_calibration_path
from converter.calibration.input_specs import InputSpec
from converter.errors import ModelError, UsageError
from converter.load.model import Source, ValueInfo
from converter.load.tensor_sizes import refuse_huge_tensors
from converter.runtime.session import open_session, run_session

__all__ = ["calibration_shapes", "parse_input_shape", "parse_input_shapes"]

_USUAL_SIZES = ((224, 224), (256, 256), (48, 320), (32, 320), (64, 64), (32, 32), (384, 384), (512, 512))
_USUAL_LENGTHS = (16, 64, 128)


def parse_input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """``NAME:1,3,48,320`` to name and sizes.

    Raises:
        UsageError: not of that form.
    """
    name, separator, sizes = text.rpartition(":")
    try:
        shape = tuple(int(s) for s in sizes.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not separator or not name or not shape or min(shape) < 1:
        raise UsageError(f"'{text}' is not a shape", where="--input-shape", hint="write NAME:1,3,48,320 with positive sizes")
    return name, shape


def parse_input_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Several of them, one for each input.

    Raises:
        UsageError: one is not of that form, or an input is named twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in map(parse_input_shape, texts):
        if name in shapes:
            raise UsageError(f"input '{name}' has two shapes", where="--input-shape", hint="give one for each input")
        shapes[name] = shape
    return shapes


def calibration_shapes(
    source: Source, given: Mapping[str, tuple[int, ...]], calib: Path | ArrayStore | None, threads: int
) -> tuple[list[InputSpec], str]:
    """Settle the size of every input.

    Returns:
        the inputs at their calibration size; a sentence about sizes that were guessed, or an empty string.

    Raises:
        UsageError: ``given`` names an unknown input, contradicts the model, or makes a tensor too large; or no usual size runs.
        ModelError: a tensor is too large at the sizes that the model declares.
        CalibrationError: ``calib`` is missing or damaged.
    """
    known = {i.name: i for i in source.inputs}
    for name, shape in given.items():
        if name not in known:
            listed = ", ".join(f"'{n}'" for n in known)
            raise UsageError(f"the model has no input '{name}'", where="--input-shape", hint=f"its inputs are {listed}")
        _check_given(known[name], shape)
    found = _array_shapes(calib) if calib is not None else {}
    settled = {
        i.name: _fill(i, given.get(i.name), found.get(i.name) or (found.get("") if len(known) == 1 else None)) for i in source.inputs
    }
    shapes = _shared(source, settled)
    refuse_huge_tensors(source.path, source.model, shapes, given)
    guess = ""
    if any(None in shape for shape in shapes.values()):
        shapes, guess = _guess(source, shapes, threads)
    return [InputSpec(i.name, shapes[i.name], i.dtype) for i in source.inputs], guess


def _check_given(value: ValueInfo, shape: tuple[int, ...]) -> None:
    if len(shape) != len(value.shape) or any(isinstance(d, int) and d != s for d, s in zip(value.shape, shape, strict=True)):
        raise UsageError(
            f"shape {list(shape)} contradicts the model's {list(value.shape)}",
            where=f"--input-shape {value.name}",
            hint="only symbolic dimensions can be set",
        )


def _fill(value: ValueInfo, given: tuple[int, ...] | None, found: tuple[int, ...] | None) -> tuple[int | None, ...]:
    if given is not None:
        return given
    usable = found if found is not None and len(found) == len(value.shape) else None
    sizes: list[int | None] = []
    for axis, size in enumerate(value.shape):
        if isinstance(size, int):
            sizes.append(size)
        else:
            sizes.append(usable[axis] if usable is not None and axis > 0 else None)
    return tuple(sizes)


def _shared(source: Source, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, tuple[int | None, ...]]:
    """What is settled of one input holds for dimensions of the same symbol in others; a batch that is still open is 1."""
    pairs = {i.name: list(zip(i.shape, shapes[i.name], strict=True)) for i in source.inputs}
    known: dict[int | str | None, set[int]] = {}
    for symbol, size in itertools.chain.from_iterable(pairs.values()):
        if isinstance(symbol, str) and size is not None:
            known.setdefault(symbol, set()).add(size)
    # some exporters write one word for everything that is open: that says nothing
    symbols = {symbol: min(sizes) for symbol, sizes in known.items() if len(sizes) == 1}
    batches = {dims[0][0] for dims in pairs.values() if len(dims) == 4}
    sides = {symbol for dims in pairs.values() for symbol, _ in dims[1:] if symbol is not None} - batches

    def size_of(axis: int, symbol: int | str | None, size: int | None) -> int | None:
        size = symbols.get(symbol) if size is None else size
        return 1 if size is None and axis == 0 and symbol not in sides else size

    return {name: tuple(size_of(axis, *dim) for axis, dim in enumerate(dims)) for name, dims in pairs.items()}


def _array_shapes(calib: Path | ArrayStore) -> dict[str, tuple[int, ...]]:
    """Shapes of given arrays, or of those in an .npz or .npy, by name ("" for the only one), read from their headers."""
    if isinstance(calib, Path):
        check_calibration_path(calib)
        if calib.is_dir() or calib.suffix.lower() not in ARRAY_SUFFIXES:
            return {}
        calib = array_file(calib)
    shapes = {name: array.shape for name, array in calib.arrays.items()}
    return {**shapes, "": next(iter(shapes.values()))} if len(shapes) == 1 else shapes


def _guess(source: Source, shapes: dict[str, tuple[int | None, ...]], threads: int) -> tuple[dict[str, tuple[int | None, ...]], str]:
    session = open_session(source.model, threads=threads)
    for candidate in _candidates(source, shapes):
        feed = {i.name: np.zeros(candidate[i.name], i.dtype) for i in source.inputs}
        try:
            run_session(session, feed)
        except ModelError:
            continue
        chosen = ", ".join(f"{name} {list(shape)}" for name, shape in candidate.items() if None in shapes[name])
        return dict(candidate), f"sizes left open by the model were guessed: {chosen}; set them with --input-shape"
    names = " ".join(f"--input-shape {name}:{_template(shape)}" for name, shape in shapes.items() if None in shape)
    raise UsageError("the model leaves input sizes open and none of the usual ones runs", where="--input-shape", hint=f"give {names}")


def _candidates(source: Source, shapes: Mapping[str, tuple[int | None, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Usual sizes for what is open; dimensions of one symbol get one size, by pictures where they have it."""
    declared = {i.name: i.shape for i in source.inputs}
    lengths_open = any(len(shape) != 4 and None in shape for shape in shapes.values())
    for (height, width), length in itertools.product(_USUAL_SIZES, _USUAL_LENGTHS if lengths_open else (0,)):
        symbols: dict[str, int] = {}
        candidate: dict[str, tuple[int, ...]] = {}
        consistent = True
        for name, shape in sorted(shapes.items(), key=lambda item: len(item[1]) != 4):
            sizes = iter((height, width) if len(shape) == 4 else ())
            filled: list[int] = []
            for symbol, given in zip(declared[name], shape, strict=True):
                size = given
                if size is None and len(shape) == 4:
                    size = next(sizes, width)
                elif size is None:
                    size = symbols.get(symbol, length) if isinstance(symbol, str) else length
                if isinstance(symbol, str) and given is None:
                    consistent &= symbols.setdefault(symbol, size) == size
                filled.append(size)
            candidate[name] = tuple(filled)
        if consistent:
            yield {name: candidate[name] for name in shapes}


def _template(shape: Sequence[int | None]) -> str:
    return ",".join("N" if s is None else str(s) for s in shape)
