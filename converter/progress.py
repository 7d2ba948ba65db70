"""Progress: what the stages tell whoever is watching. The default watcher is silent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["SILENT", "Progress"]


def _nothing(*_: object) -> None:
    return None


@dataclass(frozen=True)
class Progress:
    """Three ways to speak.

    Attributes:
        stage: called with the name of a stage as it begins.
        step: called with (done, total) within a stage.
        note: called with a sentence that the user should read.
    """

    stage: Callable[[str], None] = _nothing
    step: Callable[[int, int], None] = _nothing
    note: Callable[[str], None] = _nothing


SILENT = Progress()
