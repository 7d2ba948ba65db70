"""Ctrl-C and its relatives: end a run so that temporary files are removed, and say so with one exit code."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interruption"]

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interruption:
    """While entered, the first signal raises KeyboardInterrupt.

    The second is taken for impatience, so that it does not break the tidying up; from the third on they raise again.
    Signals that the caller ignores stay ignored, as ``nohup`` and background jobs of a shell rely on it.

    Args:
        leave: ends the process at once, for signals that come while libraries are being loaded; without it they are deferred.

    Attributes:
        received: how many signals came. An exception while it is above zero may be a library's rendering of the interruption.
    """

    def __init__(self, leave: Callable[[], None] | None = None) -> None:
        self.received = 0
        self._leave = leave
        self._deferring = False
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def check(self) -> None:
        """Raise the interruption again if a library swallowed it."""
        if self.received:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Raise no interruption before the end: raised while a library of C++ is being loaded, it would abort the process."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        self.check()

    def __enter__(self) -> Interruption:
        for number in _SIGNALS:
            if signal.getsignal(number) in (signal.SIG_IGN, None):
                continue
            try:
                self._before[number] = signal.signal(number, self._stop)
            except ValueError:  # not the main thread: signals are the caller's business
                break
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.received += 1
        if self._deferring:
            if self._leave is not None:
                self._leave()
        elif self.received != 2:
            raise KeyboardInterrupt
