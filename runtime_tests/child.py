"""What runs in a process of its own: ``python -m runtime_tests.child JOB.json``. Needs NumPy and any ONNX Runtime, nothing else.

JOB.json names a model (or none, to see what the process takes without one), session settings, samples and where outputs
go. One line of JSON goes to stdout: the runtime's version, the process's peak of resident memory, and what failed.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from runtime_tests.emulation.guest import load_tensors, save_tensors

__all__ = ["main", "peak_memory"]


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes.

    ``getrusage`` alone will not do on Linux: what it reports begins with the memory of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _run(job: Mapping[str, Any]) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for key, value in job["settings"].items():
        options.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    samples = load_tensors(Path(job["samples"]))
    names = [value.name for value in session.get_outputs()]
    runs = [session.run(names, {n: x[place] for n, x in samples.items()}) for place in range(len(next(iter(samples.values()))))]
    if job["outputs"] is not None:
        save_tensors(Path(job["outputs"]), {name: np.stack([run[i] for run in runs]) for i, name in enumerate(names)})


def main(arguments: Sequence[str]) -> int:
    """Run a job and print what came of it; 0 even if the model failed, as the line says so."""
    job, error = json.loads(Path(arguments[0]).read_text()), None
    try:
        if job["model"] is not None:
            _run(job)
    except Exception as exception:  # the runtime's exceptions share no base; the parent reports it
        error = str(exception).strip() or type(exception).__name__
    sys.stdout.write(json.dumps({"onnxruntime": onnxruntime.__version__, "peak": peak_memory(), "error": error}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
