"""Files with calibration data: which ones there are, and what becomes of those that cannot be read.

They were written by others and can hold anything, and so can the errors of the libraries that read them.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from converter.errors import CalibrationError
from converter.load.files import meant_path

__all__ = ["check_calibration_path", "files_below", "reading", "refuse_bomb"]


_LARGE_ENTRY = 1 << 26
_PATTERN = frozenset("*?[")
_MOST_UNPACKED = 200
"""Times its size in the zip; deflate reaches a thousand where one byte is repeated."""


@contextmanager
def reading(what: str, path: Path, *, hint: str) -> Iterator[None]:
    """Turn whatever a library raises on foreign bytes into an error that names the file.

    NumPy parses headers as Python text, archives hold entries in four compressions and images in as many formats as
    there are plugins: no list of their exceptions was ever complete.

    Raises:
        CalibrationError: something was raised inside; one that is of this class already is left as it is.
    """
    try:
        yield
    except CalibrationError:
        raise
    except Exception as error:
        raise CalibrationError(what, where=f"{path}: {str(error) or type(error).__name__}", hint=hint) from error


def check_calibration_path(path: Path) -> None:
    """Refuse what is neither a file nor a folder, as a pipe would be waited for, and a device may never end; and bombs of arrays.

    Raises:
        CalibrationError: it is something else, or there is nothing, or see :func:`refuse_bomb`.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        folder = _folder_of_pattern(path)
        hint = f"give the folder of the pictures: {folder}" if folder else meant_path(path) or "check the spelling"
        raise CalibrationError("there are no calibration data at this path", where=str(path), hint=hint) from None
    except (OSError, ValueError) as error:
        raise CalibrationError("the calibration data cannot be read", where=f"{path}: {error}", hint="check the path") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise CalibrationError("the calibration data are neither a file nor a folder", where=str(path), hint="write them to a file first")
    if path.suffix.lower() == ".npz" and zipfile.is_zipfile(path):
        with reading("the .npz file cannot be read", path, hint="check the file"), zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                refuse_bomb(entry, path)


def _folder_of_pattern(path: Path) -> Path | None:
    """The folder in front of a pattern such as images/*.jpg, which no shell has replaced; None if it is no pattern."""
    patterns = [place for place, part in enumerate(path.parts) if _PATTERN & set(part)]
    folder = Path(*path.parts[: patterns[0]]) if patterns else None
    return folder if folder is not None and folder.is_dir() else None


def refuse_bomb(entry: zipfile.ZipInfo, path: Path) -> None:
    """Refuse an entry of a zip that hardly holds more than a number of repetitions, and unpacks to gigabytes.

    Raises:
        CalibrationError: names it.
    """
    if entry.file_size > _LARGE_ENTRY and entry.file_size > _MOST_UNPACKED * entry.compress_size:
        what = f"'{entry.filename}' unpacks to {entry.file_size:.1e} bytes from {entry.compress_size:.1e}, as no data do"
        raise CalibrationError(what, where=str(path), hint="check where the file is from")


def files_below(folder: Path) -> list[str]:
    """Names of everything below a folder that is no folder, relative to it and with slashes, in no particular order.

    Links to folders are followed. Each folder is listed once, under its own name if it has one here, so that links in
    circles come to an end. Hidden folders are left out.

    Raises:
        CalibrationError: a folder cannot be listed.
    """
    names: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        linked: list[Path] = []
        for start in sorted(waiting):
            for place, folders, files in os.walk(start, onerror=_unlisted):
                status = os.stat(place)
                if (status.st_dev, status.st_ino) in seen:
                    folders.clear()
                    continue
                seen.add((status.st_dev, status.st_ino))
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                linked += [link for link in (Path(place, name) for name in folders) if link.is_symlink()]
                names += [Path(place, name).relative_to(folder).as_posix() for name in files]
        waiting = linked
    return names


def _unlisted(error: OSError) -> NoReturn:
    hint = "check its permissions, or move it elsewhere"
    raise CalibrationError("a folder cannot be read", where=f"{error.filename}: {error.strerror}", hint=hint) from error
