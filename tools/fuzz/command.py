"""The converter's command, called in this process."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.cli.main import main

__all__ = ["QUICK", "Called", "call"]

QUICK = ("--samples", "4", "--threads", "1", "--quiet")


@dataclass(frozen=True)
class Called:
    """What a call returned, what it wrote to stderr, and seconds of processor time."""

    code: int
    err: str
    seconds: float


def call(*words: Path | str, flags: Sequence[str] = ()) -> Called:
    """Run it with paths and flags."""
    err, begun = io.StringIO(), time.process_time()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = main([*map(str, words), *QUICK, *flags])
    return Called(code, err.getvalue(), time.process_time() - begun)
