"""Progress: what the stages tell whoever is watching. The default watcher is silent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

__all__ = ["SILENT", "Progress", "timed"]


def _nothing(*_: object) -> None:
    return None


@dataclass(frozen=True)
class Progress:
    """Four ways to speak.

    Attributes:
        stage: called with the name of a stage as it begins.
        step: called with (done, total) within a stage, or within its part.
        note: called with a sentence that the user should read.
        part: called as a part of a stage begins, with its name and with the shares of the stage, 0 to 1, that usually lie behind when it
            begins and when it ends.
    """

    stage: Callable[[str], None] = _nothing
    step: Callable[[int, int], None] = _nothing
    note: Callable[[str], None] = _nothing
    part: Callable[[str, float, float], None] = _nothing


SILENT = Progress()


def timed(progress: Progress) -> tuple[Progress, Callable[[], Mapping[str, float]]]:
    """The same watcher with a clock.

    Returns:
        the watcher to use; and what gives seconds by stage, in the order of their first beginnings. The last stage ends when it is called.
    """
    seconds: dict[str, float] = {}
    current, begin = "", 0.0

    def stage(name: str) -> None:
        nonlocal current, begin
        now = time.monotonic()
        if current:
            seconds[current] = seconds.get(current, 0.0) + now - begin
        current, begin = name, now
        progress.stage(name)

    def ended() -> Mapping[str, float]:
        left = {current: seconds.get(current, 0.0) + time.monotonic() - begin} if current else {}
        return {**seconds, **left}

    return replace(progress, stage=stage), ended
