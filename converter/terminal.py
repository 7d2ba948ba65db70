"""Progress on stderr: bars on a terminal, one line a stage elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from converter.progress import SILENT, Progress

__all__ = ["watch"]


@contextlib.contextmanager
def watch(*, quiet: bool) -> Iterator[Progress]:
    """A watcher for one conversion."""
    if quiet:
        yield SILENT
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        yield _on_terminal(bars)


def _on_terminal(bars: Bars) -> Progress:
    tasks = []

    def stage(name: str) -> None:
        for task in tasks:
            bars.remove_task(task)
        tasks[:] = [bars.add_task(name, total=None)]

    def step(done: int, total: int) -> None:
        bars.update(tasks[-1], completed=done, total=total)

    return Progress(stage, step, lambda text: bars.console.print(f"note: {text}", markup=False, highlight=False))


def _plain() -> Progress:
    start = time.monotonic()

    def stage(name: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - start:6.1f} s] {name}\n")

    return Progress(stage, note=lambda text: sys.stderr.write(f"note: {text}\n"))  # type: ignore[arg-type,return-value]
