"""Run many cases in worker processes that may die, hang or eat memory without ending the campaign."""

from __future__ import annotations

import multiprocessing
import os
import queue
import resource
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


def run_cases(kind: str, seeds: Sequence[int], jobs: int) -> Iterator[Outcome]:
    """Outcomes of all seeds, as they come."""
    waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for seed in [*seeds, *[None] * jobs]:
        waiting.put(seed)
    done: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
    for _ in range(jobs):
        threading.Thread(target=_drive, args=(kind, waiting, done), daemon=True).start()
    for _ in seeds:
        outcome = done.get()
        if isinstance(outcome, BaseException):
            raise outcome
        yield outcome


def _drive(kind: str, waiting: queue.SimpleQueue[int | None], done: queue.SimpleQueue[Outcome | BaseException]) -> None:
    """Feed one worker process after the other, until no seed is left."""
    try:
        seed = waiting.get()
        while seed is not None:
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(target=_serve, args=(kind, theirs), daemon=True)
            process.start()
            theirs.close()
            for _ in range(_CASES_OF_A_PROCESS):
                outcome = _asked(kind, seed, ours)
                done.put(outcome)
                seed = waiting.get()
                if seed is None or outcome.endings in (_DIED, _HUNG):
                    break
            process.kill()
            process.join()
    except BaseException as error:
        done.put(error)


_DIED, _HUNG = ("the process died",), ("no end",)


def _asked(kind: str, seed: int, worker: Connection) -> Outcome:
    worker.send(seed)
    if not worker.poll(_PATIENCE * MOST_SECONDS):
        return Outcome(kind, seed, "", _HUNG, (f"not done after {_PATIENCE * MOST_SECONDS:.0f} s",))
    try:
        outcome: Outcome = worker.recv()
    except EOFError:
        return Outcome(kind, seed, "", _DIED, _DIED)
    return outcome


def _serve(kind: str, asked: Connection) -> None:
    """In a worker: answer seeds with outcomes."""
    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (_DATA_LIMIT, _DATA_LIMIT))
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libraries write there what is no message of ours
        os.dup2(silent, stream)
    run = import_module(f"tools.fuzz.{kind}").run
    while True:
        seed = asked.recv()
        asked.send(measured(partial(run, seed)))


def measured(run: partial[Outcome]) -> Outcome:
    """Run one case in a folder of its own; with the memory it took, and what is wrong with its use of time and memory."""
    with tempfile.TemporaryDirectory() as folder:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        outcome = run(folder=Path(folder))
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
