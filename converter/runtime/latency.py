"""Latency of models as a ratio, measured in turns in one process: absolute times mean nothing on a shared machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import onnx

from converter.runtime.session import Feed, open_session, run_session

__all__ = ["LatencyRatio", "latency_ratio", "ratio_of_times", "times_in_turns"]


@dataclass(frozen=True)
class LatencyRatio:
    """How much faster the second model is.

    Attributes:
        ratio: median of (first's time / second's time) over the turns; above 1, the second is faster.
        low: tenth percentile of the same.
        high: ninetieth percentile.
        turns: how many.
    """

    ratio: float
    low: float
    high: float
    turns: int


def latency_ratio(first: onnx.ModelProto, second: onnx.ModelProto, feed: Feed, *, threads: int = 1, seconds: float = 3.0) -> LatencyRatio:
    """Run both models in turns for about ``seconds`` and compare each pair."""
    sessions = [open_session(model, threads=threads, spinning=True) for model in (first, second)]
    first_times, second_times = times_in_turns([partial(run_session, session, feed) for session in sessions], seconds=seconds)
    return ratio_of_times(first_times, second_times)


def times_in_turns(runs: Sequence[Callable[[], object]], *, seconds: float) -> tuple[list[float], ...]:
    """Run each once to warm up, then all in turns for about so many seconds, at least five times and at most a thousand times.

    Returns:
        for each, the seconds that it took, in the order of the turns.
    """
    for run in runs:
        run()
    times: tuple[list[float], ...] = tuple([] for _ in runs)
    end = time.perf_counter() + seconds
    while len(times[0]) < 5 or (time.perf_counter() < end and len(times[0]) < 1000):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return times


def ratio_of_times(first: Sequence[float], second: Sequence[float]) -> LatencyRatio:
    """Compare the times that two models took in turns, the same number of each and at least one."""
    ratios = sorted(one / other for one, other in zip(first, second, strict=True))
    return LatencyRatio(statistics.median(ratios), ratios[len(ratios) // 10], ratios[(9 * len(ratios)) // 10], len(ratios))
