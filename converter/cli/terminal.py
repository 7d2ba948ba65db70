"""Progress on stderr: bars on a terminal; elsewhere a line for each stage that took long."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from converter.progress import SILENT, Progress

__all__ = ["LONG", "watch"]

LONG = 2.0
"""Seconds from which a stage is worth a line where there is no terminal."""

_INPUT_STAGES = ("start", "load", "canonicalise", "observe")
"""Stages that end in an error message when the input is bad; what they took is told once it has proven good."""


@contextlib.contextmanager
def watch(*, quiet: bool) -> Iterator[Progress]:
    """A watcher for one conversion."""
    if quiet or sys.stderr is None:
        yield SILENT
        return
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        lines = _Lines()
        yield Progress(lines.stage, note=lines.note)
        lines.finish()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        yield _on_terminal(bars)


def _on_terminal(bars: Bars) -> Progress:
    tasks: list[TaskID] = []

    def stage(name: str) -> None:
        for task in tasks:
            bars.remove_task(task)
        tasks[:] = [bars.add_task(escape(f"{name:12}"), total=None, count="")]

    def step(done: int, total: int) -> None:
        bars.update(tasks[-1], completed=done, total=total, count=f"{done}/{total}")

    return Progress(stage, step, lambda text: bars.console.print(f"note: {text}", markup=False))


class _Lines:
    """Keeps quiet as long as nothing takes long, so that an early failure is not buried under chatter."""

    def __init__(self) -> None:
        self.begin = self.start = time.monotonic()
        self.name = ""
        self.held: list[str] = []
        self.notes: list[str] = []

    def stage(self, name: str) -> None:
        now = time.monotonic()
        if self.name and now - self.start >= LONG:
            self.held.append(f"[{now - self.begin:6.1f} s] {self.name} took {now - self.start:.1f} s")
        if name not in _INPUT_STAGES:
            for line in self.held:
                self._write(line)
            self.held.clear()
        self.name, self.start = name, now

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finish(self) -> None:
        self.stage("")
        for text in self.notes:
            self._write(f"note: {text}")

    def _write(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
