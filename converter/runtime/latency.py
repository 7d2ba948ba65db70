"""Latency of two models as a ratio, measured in turns in one process: absolute times mean nothing on a shared machine."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import onnx

from converter.runtime.session import Feed, open_session, run_session

__all__ = ["LatencyRatio", "latency_ratio"]


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
    sessions = [open_session(model, threads=threads) for model in (first, second)]
    for session in sessions:
        run_session(session, feed)
    ratios: list[float] = []
    end = time.perf_counter() + seconds
    while len(ratios) < 5 or (time.perf_counter() < end and len(ratios) < 1000):
        times = []
        for session in sessions:
            start = time.perf_counter()
            run_session(session, feed)
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    ratios.sort()
    return LatencyRatio(statistics.median(ratios), ratios[len(ratios) // 10], ratios[(9 * len(ratios)) // 10], len(ratios))
