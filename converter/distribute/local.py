"""Pieces on processes of this machine. Each process works on one piece at a time, so that it is known whose worker died."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from converter.distribute.died import TRIES, died

__all__ = ["as_done_locally"]

_PIECES_OF_A_PROCESS = 20
"""After which a fresh one takes over, as memory grows."""

_SECONDS_TO_END = 2.0


@dataclass(eq=False)
class _Worker:
    """A process, and this end of the pipe to it.

    Attributes:
        process: that works.
        pipe: gives pieces and takes results.
        pieces: that it was given so far.
    """

    process: BaseProcess
    pipe: Connection
    pieces: int = 0

    def stop(self) -> None:
        """End the process, whatever it is doing; it has a moment to end what it has started."""
        self.pipe.close()
        self.process.terminate()
        self.process.join(_SECONDS_TO_END)
        self.process.kill()
        self.process.join()


def as_done_locally(
    work: Callable[[Any, Any], Any], state: Any, pieces: Sequence[Any], jobs: int, name: Callable[[Any], str]
) -> Iterator[tuple[Any, Any]]:
    """Work on all pieces, ``jobs`` at once; see :func:`converter.distribute.workers.as_done`."""
    waiting = deque((piece, 1) for piece in pieces)
    idle: list[_Worker] = []
    running: dict[Connection, tuple[_Worker, Any, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                worker = idle.pop() if idle else _started(work, state)
                piece, attempt = waiting.popleft()
                running[worker.pipe] = worker, piece, attempt
                _give(worker, piece)
            ready = wait(list(running))
            for pipe in [pipe for pipe in running if pipe in ready]:
                worker, piece, attempt = running.pop(pipe)
                try:
                    result, error = worker.pipe.recv()
                except (EOFError, ConnectionResetError):
                    worker.stop()
                    if attempt == TRIES:
                        raise died(name(piece)) from None
                    waiting.appendleft((piece, attempt + 1))
                    continue
                if error is not None:
                    worker.stop()
                    raise error
                if worker.pieces < _PIECES_OF_A_PROCESS:
                    idle.append(worker)
                else:
                    worker.stop()
                yield piece, result
    finally:
        for worker in [*idle, *(worker for worker, _, _ in running.values())]:
            worker.stop()


def _started(work: Callable[[Any, Any], Any], state: Any) -> _Worker:
    # a fresh interpreter: one that is forked inherits locks of the runtime's threads
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, work, state), daemon=True)
    process.start()
    there.close()  # the end of the process is then the end of the pipe
    return _Worker(process, here)


def _give(worker: _Worker, piece: Any) -> None:
    worker.pieces += 1
    with contextlib.suppress(BrokenPipeError):  # it has died since; taking its result tells
        worker.pipe.send(piece)


def _serve(pipe: Connection, work: Callable[[Any, Any], Any], state: Any) -> None:
    """Work on pieces until there is nobody to give one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is interrupted ends this process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    while True:
        try:
            piece = pipe.recv()
        except EOFError:
            return
        answer: tuple[Any, Exception | None]
        try:
            answer = work(state, piece), None
        except Exception as error:  # whatever it is, who asked is told
            answer = None, error
        pipe.send(answer)
