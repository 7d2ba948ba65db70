"""Latency of two models as a ratio, measured in turns in one process: absolute times mean nothing on a shared machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from converter.runtime.session import Feed, open_session, run_session

__all__ = ["LatencyRatio", "latency_ratio", "ratio_of_times"]


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
    for session in sessions:
        run_session(session, feed)
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while len(times[0]) < 5 or (time.perf_counter() < end and len(times[0]) < 1000):
        for session, taken in zip(sessions, times, strict=True):
            start = time.perf_counter()
            run_session(session, feed)
            taken.append(time.perf_counter() - start)
    return ratio_of_times(*times)


def ratio_of_times(first: Sequence[float], second: Sequence[float]) -> LatencyRatio:
    """Compare the times that two models took in turns, the same number of each and at least one."""
    ratios = sorted(one / other for one, other in zip(first, second, strict=True))
    return LatencyRatio(statistics.median(ratios), ratios[len(ratios) // 10], ratios[(9 * len(ratios)) // 10], len(ratios))
