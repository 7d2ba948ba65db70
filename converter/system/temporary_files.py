"""Temporary files that cannot be written; loads nothing heavy."""

from __future__ import annotations

import os

from converter.errors import UsageError

__all__ = ["no_temporary_files"]


def no_temporary_files(error: OSError) -> UsageError:
    """What to tell when the system does not take a temporary file."""
    what = f"temporary files cannot be written: {error.strerror or error}"
    return UsageError(what, where=os.environ.get("TMPDIR", "the folder of temporary files"), hint="set TMPDIR to a folder with some space")
