"""Run many cases in worker processes that may die, hang or eat memory without ending the campaign."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import resource
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from tools.fuzz.outcome import MOST_MEGABYTES, MOST_SECONDS, Outcome

__all__ = ["KINDS", "run_cases", "summary"]

KINDS = ("graphs", "mutations", "data", "files")
"""Each a module of this folder with a function ``run(seed, folder)``."""

_PATIENCE = 10.0
"""A case may wait for a busy machine, and hold several conversions: it is given up after so many times its processor time."""
_CASES_OF_A_PROCESS = 50
_DATA_LIMIT = 6 << 30


def run_cases(kind: str, seeds: Sequence[int], jobs: int, keep: Path | None = None) -> Iterator[Outcome]:
    """Outcomes of all seeds, as they come.

    Args:
        kind: one of :data:`KINDS`.
        seeds: of the cases.
        jobs: worker processes.
        keep: folder for the files of cases that show a fault.
    """
    waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for seed in [*seeds, *[None] * jobs]:
        waiting.put(seed)
    done: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
    for _ in range(jobs):
        threading.Thread(target=_drive, args=(kind, waiting, done, keep), daemon=True).start()
    for _ in seeds:
        outcome = done.get()
        if isinstance(outcome, BaseException):
            raise outcome
        yield outcome


def _drive(kind: str, waiting: queue.SimpleQueue[int | None], done: queue.SimpleQueue[Outcome | BaseException], keep: Path | None) -> None:
    """Feed one worker process after the other, until no seed is left."""
    try:
        seed = waiting.get()
        while seed is not None:
            with _worker(kind) as worker:
                for _ in range(_CASES_OF_A_PROCESS):
                    outcome = _asked(kind, seed, worker, keep)
                    done.put(outcome)
                    seed = waiting.get()
                    if seed is None or outcome.endings in (_DIED, _HUNG):
                        break
    except BaseException as error:  # of the campaign itself: for the thread that waits
        done.put(error)


@contextlib.contextmanager
def _worker(kind: str) -> Iterator[Connection]:
    """A process that answers (seed, folder) with an outcome, or with the error that the case itself has."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(kind, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()  # it has started
        yield ours
    finally:
        process.kill()
        process.join()


_DIED, _HUNG = ("the process died",), ("no end",)


def _asked(kind: str, seed: int, worker: Connection, keep: Path | None) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        worker.send((seed, folder))
        outcome = _answer(kind, seed, worker)
        if outcome.faults and keep is not None:
            shutil.copytree(folder, keep / f"{kind}_{seed}", symlinks=True, dirs_exist_ok=True, copy_function=_copied)
    return outcome


def _copied(source: str, target: str) -> None:
    if Path(source).is_file():  # and no pipe
        shutil.copy2(source, target)


def _answer(kind: str, seed: int, worker: Connection) -> Outcome:
    limit = _PATIENCE * MOST_SECONDS
    if not worker.poll(limit):
        return Outcome(kind, seed, "", _HUNG, (f"not done after {limit:.0f} s",))
    try:
        answer: Outcome | Exception = worker.recv()
    except EOFError:
        return Outcome(kind, seed, "", _DIED, _DIED)
    if isinstance(answer, Exception):
        raise RuntimeError(f"{kind} with seed {seed} is itself at fault") from answer
    return answer


def _serve(kind: str, asked: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (_DATA_LIMIT, _DATA_LIMIT))
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libraries write there what is no message of ours
        os.dup2(silent, stream)
    run = import_module(f"tools.fuzz.{kind}").run
    asked.send("started")
    while True:
        seed, folder = asked.recv()
        try:
            asked.send(measured(partial(run, seed, Path(folder))))
        except Exception as error:
            asked.send(error)


def measured(run: partial[Outcome]) -> Outcome:
    """Run one case; with the memory it took, and what is wrong with its use of time and memory."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    outcome = run()
    status = Path("/proc/self/status").read_text()
    megabytes = int(status.partition("VmHWM:")[2].split()[0]) / 1e3
    faults = [*outcome.faults]
    if outcome.seconds > MOST_SECONDS:
        faults.append(f"took {outcome.seconds:.0f} s")
    if megabytes > MOST_MEGABYTES:
        faults.append(f"held {megabytes:.0f} MB")
    return replace(outcome, faults=tuple(faults), megabytes=megabytes)


def summary(kind: str, outcomes: Sequence[Outcome]) -> str:
    """One line on a campaign."""
    ends = Counter(ending for outcome in outcomes for ending in outcome.endings)
    slowest, largest = max(outcomes, key=lambda o: o.seconds), max(outcomes, key=lambda o: o.megabytes)
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.figures)
    figures = "".join(f", median {name} {median(o.figures[name] for o in outcomes if name in o.figures):.1f}" for name in names)
    return (
        f"{kind}: {len(outcomes)} cases, {sum(bool(o.faults) for o in outcomes)} with faults; "
        f"{', '.join(f'{times} x {end}' for end, times in ends.most_common())}; slowest {slowest.seconds:.1f} s (seed {slowest.seed}), "
        f"largest {largest.megabytes:.0f} MB (seed {largest.seed}){figures}"
    )
