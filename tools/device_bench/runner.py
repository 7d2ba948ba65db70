"""What runs on the device: ``python runner.py [JOB.json]``. Needs NumPy and any ONNX Runtime, Python 3.10 or newer, nothing else.

Without a job it tells what is installed. JOB.json names models, a file of samples, threads, and for how long to run. The models run in
turns on the first sample, so that whatever happens to the device meanwhile happens to all of them. One line of JSON goes to stdout.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from runtime_tests.emulation.guest import load_tensors

__all__ = ["LEAST_TURNS", "MOST_TURNS", "main", "run_in_turns"]

LEAST_TURNS, MOST_TURNS = 5, 2000


def _open(model: str, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_in_turns(job: Mapping[str, Any]) -> list[list[float]]:
    """Milliseconds of each run, by model: at least :data:`LEAST_TURNS`, until the time is over."""
    sessions = [_open(model, job["threads"]) for model in job["models"]]
    feed = {name: np.ascontiguousarray(samples[0]) for name, samples in load_tensors(Path(job["samples"])).items()}
    for _ in range(job["warm"]):
        for session in sessions:
            session.run(None, feed)
    times: list[list[float]] = [[] for _ in sessions]
    end = time.perf_counter() + job["seconds"]
    while len(times[0]) < LEAST_TURNS or (time.perf_counter() < end and len(times[0]) < MOST_TURNS):
        for session, taken in zip(sessions, times, strict=True):
            start = time.perf_counter_ns()
            session.run(None, feed)
            taken.append((time.perf_counter_ns() - start) / 1e6)
    return times


def main(arguments: Sequence[str]) -> int:
    """Run a job, if there is one, and print what came of it; 0 even if a model failed, as the line says so."""
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "times": None,
        "error": None,
    }
    try:
        if arguments:
            found["times"] = run_in_turns(json.loads(Path(arguments[0]).read_text()))
    except Exception as exception:  # the runtime's exceptions share no base; the host reports it
        found["error"] = str(exception).strip() or type(exception).__name__
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
