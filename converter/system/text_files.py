"""Small files of text, such as plans and targets, that others have written."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

__all__ = ["check_text_file", "read_text"]

_LONGEST = 1 << 26
"""Bytes; the plan of a network with thousands of operators has a tenth."""


def check_text_file(path: Path) -> None:
    """Look at a file from outside.

    Raises:
        OSError: it does not exist, is a pipe or a device, or longer than any such file is.
    """
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # a pipe would be waited for, and a device may never end
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")
    if status.st_size > _LONGEST:
        raise OSError(errno.EFBIG, "it is larger than such a file ever is")


def read_text(path: Path) -> str:
    """What a file holds, in UTF-8.

    Raises:
        OSError: it cannot be read, or see :func:`check_text_file`.
        UnicodeDecodeError: it is not text.
    """
    check_text_file(path)
    return path.read_text(encoding="utf-8")
