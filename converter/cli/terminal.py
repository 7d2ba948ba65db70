"""Progress on stderr: bars on a terminal; elsewhere a line for each stage that took long."""

from __future__ import annotations

import contextlib
import datetime
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from converter.progress import SILENT, Progress

__all__ = ["LONG", "watch"]

LONG = 2.0
"""Seconds from which a stage is worth a line where there is no terminal."""

_LEAST_SHARE = 0.02
"""Of a stage, from which on its end is foretold."""

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
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn(), _TimeLeft())
    with Bars(*columns, console=console, transient=True) as bars:
        yield _on_terminal(bars)


class _TimeLeft(ProgressColumn):
    """When a stage is expected to end, if it goes on as it went on average; rich's own column looks at the last steps only."""

    def render(self, task: Task) -> Text:
        """Nothing as long as next to nothing is known."""
        share = task.percentage / 100.0 if task.total else 0.0
        if share < _LEAST_SHARE or not task.elapsed:
            return Text("")
        return Text(f"{datetime.timedelta(seconds=round(task.elapsed * (1.0 - share) / share))} left")


def _on_terminal(bars: Bars) -> Progress:
    tasks: list[TaskID] = []
    span = (0.0, 1.0)
    current = ""

    def stage(name: str) -> None:
        nonlocal span, current
        for task in tasks:
            bars.remove_task(task)
        span, current = (0.0, 1.0), name
        tasks[:] = [bars.add_task(escape(f"{name:12}"), total=None, count="")]

    def part(name: str, begin: float, end: float) -> None:
        nonlocal span
        span = begin, end
        bars.update(tasks[-1], completed=begin, total=1.0, count="", description=escape(f"{current}: {name}"))

    def step(done: int, total: int) -> None:
        begin, end = span
        bars.update(tasks[-1], completed=begin + (end - begin) * done / max(1, total), total=1.0, count=f"{done}/{total}")

    return Progress(stage, step, lambda text: bars.console.print(f"note: {text}", markup=False), part)


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
