"""Work for tests: functions that a process elsewhere finds by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import UsageError

__all__ = ["dot", "dying", "fail", "sleep"]


def dot(state: Mapping[str, Any], piece: int) -> tuple[int, bytes]:
    """A float sum whose last bits depend on how it is added up; and who added it up."""
    generator = np.random.default_rng(piece)
    return os.getpid(), np.float32(generator.random(1000, np.float32) @ state["vector"]).tobytes()


def dying(marks: Path, piece: int) -> int:
    """Twice the number; piece 3 kills its process at the first try, piece 99 at every one. Tries leave marks."""
    tried = len(list(marks.glob(f"{piece}.*")))
    (marks / f"{piece}.{tried}").touch()
    if piece == 99 or (piece == 3 and not tried):
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * piece


def fail(_: object, piece: int) -> int:
    """Raise an error of ours, which says what to do."""
    raise UsageError(f"piece {piece} makes no sense", where="here", hint="leave it out")


def sleep(ended: Path | None, piece: int) -> int:
    """As many seconds; the process is told, and the end leaves a file."""
    try:
        time.sleep(piece)
    finally:
        if ended is not None:
            ended.touch()
    return os.getpid()
