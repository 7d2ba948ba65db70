"""Several cores, and the same numbers on any number of them: each operation runs on one thread, many run at once.

Torch's own threads share out single operations, which are small here, and wait for each other busily; and sums then
depend on how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from converter.system.freed_memory import release_freed_memory

__all__ = ["in_order", "one_thread_each", "over_samples", "worker_count"]

_UNTIL_RELEASE = 2
"""Calls: what they keep stands between what they free, and the next ones find no room there."""

T = TypeVar("T")
R = TypeVar("R")


def worker_count(threads: int) -> int:
    """Workers for a number of threads that was asked for; 0 stands for as many as this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return threads or usable or 1


@contextmanager
def one_thread_each() -> Iterator[None]:
    """While it lasts, torch runs each operation on the thread that asks for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_order(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Apply a function to all items, some at once; results come in the order of the items.

    Args:
        function: must not change what another call reads.

    Raises:
        whatever the function raises first, in the order of the items.
    """
    if workers == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, items)


def over_samples(function: Callable[[int], R], samples: int, at_once: int, workers: int) -> list[R]:
    """Apply a function to the number of the first of every few samples, some at once, and give back the memory it took.

    Args:
        function: must not change what another call reads.
        samples: how many there are.
        at_once: how many each call takes.
        workers: how many calls run at once.

    Raises:
        whatever the function raises first, in the order of the samples.
    """
    done = []
    for number, result in enumerate(in_order(function, range(0, samples, at_once), workers), 1):
        done.append(result)
        if number % _UNTIL_RELEASE == 0:
            release_freed_memory()
    release_freed_memory()
    return done
