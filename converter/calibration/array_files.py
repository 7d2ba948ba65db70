"""Arrays in ``.npy`` and ``.npz`` files, read block by block, so that a file may be larger than the memory.

Formats: ``numpy.lib.format`` of the NumPy manual; an ``.npz`` is a zip of ``.npy`` files. Nothing is ever unpickled, as
that would run code found in the file.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from converter.calibration.calibration_files import reading

__all__ = ["ARRAY_SUFFIXES", "ArrayStore", "StoredArray", "array_blocks", "array_file", "stored_arrays"]

ARRAY_SUFFIXES = (".npz", ".npy")

_ENTRY_SUFFIX = ".npy"
_BLOCK = 1 << 24  # bytes read at once
_HINT = "write it with numpy.savez or numpy.save; arrays of Python objects are not accepted"

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StoredArray:
    """What the header of an array says.

    Attributes:
        shape: its dimensions; a single number counts as one of one element.
        dtype: of its elements, in the byte order of the file.
        by_columns: the first dimension is the one that runs fastest.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_columns: bool


@dataclass(frozen=True)
class ArrayStore:
    """Arrays with samples along axis 0, in a file or in memory.

    Attributes:
        where: what it is called in messages.
        arrays: what they look like, by name.
        blocks: gives one of them, by name, as consecutive blocks of rows.
    """

    where: str
    arrays: Mapping[str, StoredArray]
    blocks: Callable[[str], Iterator[Array]]


def array_file(path: Path) -> ArrayStore:
    """The arrays of an ``.npz`` or ``.npy``; the one of an ``.npy`` has no name.

    Raises:
        CalibrationError: see :func:`stored_arrays`.
    """
    return ArrayStore(str(path), stored_arrays(path), lambda name: array_blocks(path, name))


def stored_arrays(path: Path) -> dict[str, StoredArray]:
    """The arrays of a file by name, from their headers; the one of an ``.npy`` has no name.

    Raises:
        CalibrationError: the file is damaged, is not what its name says, or holds anything but arrays of numbers.
    """
    with _readable(path):
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                return {"": _header(file, path.stat().st_size)}
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for entry in archive.infolist():
                if not entry.filename.endswith(_ENTRY_SUFFIX):
                    raise ValueError(f"its entry '{entry.filename}' is no array")
                with archive.open(entry) as file:
                    arrays[entry.filename.removesuffix(_ENTRY_SUFFIX)] = _header(file, entry.file_size)
            return arrays


def array_blocks(path: Path, name: str) -> Iterator[Array]:
    """One array of a file as consecutive blocks of rows, which do not outlive the iteration.

    Raises:
        CalibrationError: the file is damaged.
    """
    with _readable(path):
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                stored = _header(file, path.stat().st_size)
                if not stored.by_columns:
                    yield from _streamed(file, stored)
                    return
            # np.load would also open an archive under this name
            whole = np.atleast_1d(npy_format.open_memmap(path, mode="r"))
            yield from _slices(whole)
            return
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}{_ENTRY_SUFFIX}") as file:
            stored = _header(file, archive.getinfo(f"{name}{_ENTRY_SUFFIX}").file_size)
            if stored.by_columns and len(stored.shape) > 1:
                flat = np.frombuffer(_read(file, math.prod(stored.shape) * stored.dtype.itemsize), stored.dtype)
                yield from _slices(flat.reshape(stored.shape, order="F"))
            else:
                yield from _streamed(file, stored)
            file.read(1)  # at the end of an entry its checksum is compared


def _readable(path: Path) -> AbstractContextManager[None]:
    return reading(f"the {path.suffix} file cannot be read", path, hint=_HINT)


def _header(file: IO[bytes], size: int) -> StoredArray:
    """Read a header, of a file or entry of `size` bytes, and leave the file where the data begin."""
    version = npy_format.read_magic(file)
    # versions 2 and 3 differ in the encoding of field names, and arrays with fields fit no input
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if any(length < 0 for length in shape):
        raise ValueError(f"it says that its shape is {list(shape)}")
    if math.prod(shape) * dtype.itemsize > size - file.tell():
        raise ValueError(f"it says that its shape is {list(shape)}, for which it is too short")
    return StoredArray(tuple(map(int, shape)) or (1,), dtype, bool(by_columns))


def _rows_at_once(stored: StoredArray | Array) -> int:
    row = math.prod(stored.shape[1:]) * stored.dtype.itemsize
    return max(1, _BLOCK // row) if row else max(1, stored.shape[0])


def _slices(array: Array) -> Iterator[Array]:
    step = _rows_at_once(array)
    for start in range(0, len(array), step):
        yield array[start : start + step]


def _streamed(file: IO[bytes], stored: StoredArray) -> Iterator[Array]:
    row_shape, step = stored.shape[1:], _rows_at_once(stored)
    for start in range(0, stored.shape[0], step):
        rows = min(step, stored.shape[0] - start)
        data = _read(file, rows * math.prod(row_shape) * stored.dtype.itemsize)
        yield np.frombuffer(data, stored.dtype).reshape(rows, *row_shape)


def _read(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError("it ends too early")
    return data
