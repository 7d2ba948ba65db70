"""Pieces of work that know nothing of each other, on several processes: local ones, or those of a Ray cluster.

A piece is worked on by a function of a module, from a state that all pieces share. Both travel to the workers, the state once for each of
them, and the result travels back. Nothing else does, so that results are the same wherever and in whatever order pieces are worked on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from converter.distribute.local import as_done_locally
from converter.distribute.on_ray import as_done_on_ray, check_ray
from converter.errors import UsageError

__all__ = ["Workers", "add_worker_flags", "as_done", "workers_of"]

S = TypeVar("S")
P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Workers:
    """Where pieces are worked on.

    Attributes:
        jobs: processes of this machine at once; 0 for none but the calling one.
        ray: address of a Ray cluster, ``auto`` for the one that runs on this machine; empty for none.
    """

    jobs: int = 0
    ray: str = ""

    @property
    def alone(self) -> bool:
        """No other process takes part."""
        return not self.ray and self.jobs == 0


def as_done(
    work: Callable[[S, P], R],
    state: S,
    pieces: Sequence[P],
    workers: Workers,
    *,
    files: Iterable[Path] = (),
    name: Callable[[P], str] = str,
) -> Generator[tuple[P, R], None, None]:
    """Work on all pieces; give each with its result as soon as it is there.

    Closed before the last one, it ends the workers.

    A piece whose worker dies is tried again by a fresh one, three times in all. What the function raises is not: it is raised here.

    Args:
        work: of a module, so that it is found by its name elsewhere.
        state: what all pieces share; it can be pickled, as pieces and results can.
        pieces: in the order in which they are begun.
        workers: where.
        files: that the function reads by their paths, which are absolute. A machine of the cluster that lacks one gets a copy at the same
            path; of those of this machine none is touched.
        name: of a piece, for messages.

    Raises:
        ConverterError: the workers of one piece died three times.
        UsageError: Ray is not installed, or there is no such cluster.
    """
    if workers.alone:
        yield from ((piece, work(state, piece)) for piece in pieces)
    elif workers.ray:
        yield from as_done_on_ray(work, state, pieces, workers.ray, files, name)
    else:
        yield from as_done_locally(work, state, pieces, workers.jobs, name)


def add_worker_flags(parser: argparse.ArgumentParser, *, jobs: int, pieces: str) -> None:
    """Add ``--jobs`` and ``--ray`` to a command.

    Args:
        parser: of the command.
        jobs: processes by default.
        pieces: what is worked on at once, in the plural.
    """
    usual = "none but this one" if jobs == 0 else str(jobs)
    parser.add_argument("--jobs", type=int, default=jobs, metavar="N", help=f"processes for {pieces}; 0 for this one (default: {usual})")
    parser.add_argument("--ray", default="", metavar="ADDRESS", help=f"Ray cluster for {pieces} instead; auto for the one of this machine")


def workers_of(flags: argparse.Namespace) -> Workers:
    """What the flags of :func:`add_worker_flags` say.

    Raises:
        UsageError: a negative number of processes, or Ray is not installed.
    """
    if flags.jobs < 0:
        raise UsageError(f"--jobs must be at least 0, not {flags.jobs}", where="--jobs", hint="leave it out")
    if flags.ray:
        check_ray()
    return Workers(flags.jobs, flags.ray)
