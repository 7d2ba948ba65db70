"""NumPy files as they are found: whole, damaged, and larger than the memory."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numpy.lib import format as npy_format

from converter.calibration import array_files
from converter.calibration.array_files import array_blocks, stored_arrays
from converter.errors import CalibrationError


def npy(array: npt.NDArray[Any], *, version: tuple[int, int] = (1, 0)) -> bytes:
    buffer = io.BytesIO()
    npy_format.write_array(buffer, array, version=version)
    return buffer.getvalue()


def with_header(text: str, data: bytes = b"") -> bytes:
    """An .npy of version 1 with any text for a header."""
    padded = text.encode("latin1").ljust(118)
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + data


def written(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    """The content as an .npy, or in an .npz as the array ``v``."""
    if path.suffix == ".npy":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("v.npy", content)
    return path


def read(path: Path) -> npt.NDArray[Any]:
    (name,) = stored_arrays(path)
    return np.concatenate([np.array(block) for block in array_blocks(path, name)])


ARRAYS = [
    np.arange(24, dtype=np.float32).reshape(6, 4),
    np.asfortranarray(np.arange(24, dtype=">f8").reshape(6, 2, 2)),
    np.arange(5, dtype=np.uint8),
    np.ones((3, 0, 2), np.float32),
    np.float64(2.5),
]


@pytest.mark.parametrize("block", [1, 40, 1 << 24])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("array", ARRAYS)
def test_blocks_make_up_the_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: npt.NDArray[Any], suffix: str, block: int
) -> None:
    monkeypatch.setattr(array_files, "_BLOCK", block)
    for version in ((1, 0), (2, 0), (3, 0)):
        path = written(tmp_path / f"a{suffix}", npy(np.asanyarray(array), version=version))
        (stored,) = stored_arrays(path).values()
        assert (stored.shape, stored.dtype) == (np.atleast_1d(array).shape, array.dtype)
        np.testing.assert_array_equal(read(path), np.atleast_1d(array))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_changed_byte_of_an_archive_is_seen(tmp_path: Path, compression: int) -> None:
    values = np.random.default_rng(0).integers(0, 50, (100, 7)).astype(np.float32)
    path = written(tmp_path / "a.npz", npy(values), compression)
    np.testing.assert_array_equal(read(path), values)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"the \.npz file cannot be read") as caught:
        read(path)
    assert caught.value.where.startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), (",  # tokenize.TokenError
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 3), }",  # OverflowError
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000000), }",  # MemoryError
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 3, }",
        "{'descr': '<f4', 'fortran_order': False }",
        "{'descr': 'no type', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }",
        "((((((((((" * 11,
        "\0",
        "",
    ],
)
def test_headers_that_make_no_sense(tmp_path: Path, suffix: str, header: str) -> None:
    path = written(tmp_path / f"a{suffix}", with_header(header, bytes(24)))
    with pytest.raises(CalibrationError, match="cannot be read") as caught:
        stored_arrays(path)
    assert caught.value.where.startswith(f"{path}: ") and "numpy.save" in caught.value.hint


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_that_end_too_early(tmp_path: Path, suffix: str) -> None:
    whole = npy(np.ones((4, 3), np.float32))
    for length in range(0, len(whole), 7):
        with pytest.raises(CalibrationError, match="cannot be read"):
            stored_arrays(written(tmp_path / f"a{suffix}", whole[:length]))


def test_names_that_promise_something_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", v=np.ones(3))
    np.save(tmp_path / "b.npy", np.ones(3))
    shutil.move(tmp_path / "a.npz", tmp_path / "archive.npy")
    shutil.move(tmp_path / "b.npy", tmp_path / "array.npz")
    for name in ("archive.npy", "array.npz"):
        with pytest.raises(CalibrationError, match="cannot be read"):
            stored_arrays(tmp_path / name)


def test_an_archive_with_something_else_in_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("v.npy", npy(np.ones(3)))
        archive.writestr("notes.txt", "hello")
    with pytest.raises(CalibrationError) as caught:
        stored_arrays(tmp_path / "a.npz")
    assert "'notes.txt' is no array" in caught.value.where
