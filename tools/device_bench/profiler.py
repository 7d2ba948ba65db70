"""What runs on the device to fit costs: ``python profiler.py JOB.json RESULT.json.gz``. Needs NumPy and any ONNX Runtime.

JOB.json lists groups: models that run in turns on the same inputs, each with the runtime's own profile. The result has, for each
model, the events about nodes that ran, as the runtime writes them.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from runtime_tests.emulation.guest import load_tensors

__all__ = ["main", "profiled"]

_KERNEL = "_kernel_time"
_KEPT = ("node_index", "op_name", "input_type_shape", "output_type_shape")


def profiled(group: Mapping[str, Any], runs: int, folder: Path) -> list[list[dict[str, Any]]]:
    """Events of each model of a group, which run in turns, on one thread."""
    feed = load_tensors(Path(group["inputs"]))
    sessions = [_open(model, group["settings"], folder / f"profile{place}") for place, model in enumerate(group["models"])]
    for _ in range(runs):
        for session in sessions:
            session.run(None, feed)
    return [_events(Path(session.end_profiling())) for session in sessions]


def _open(model: str, settings: Mapping[str, str], prefix: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    options.enable_profiling, options.profile_file_prefix = True, str(prefix)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _events(profile: Path) -> list[dict[str, Any]]:
    events = [event for event in json.loads(profile.read_text()) if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)]
    profile.unlink()
    return [
        {**{key: event[key] for key in ("cat", "name", "dur")}, "args": {key: event["args"].get(key) for key in _KEPT}} for event in events
    ]


def main(arguments: Sequence[str]) -> int:
    """Profile all groups and write the result; one line of JSON tells whether that worked."""
    error = None
    job = json.loads(Path(arguments[0]).read_text())
    try:
        with tempfile.TemporaryDirectory(dir=Path(arguments[1]).parent) as folder:
            found = [profiled(group, job["runs"], Path(folder)) for group in job["groups"]]
        Path(arguments[1]).write_bytes(gzip.compress(json.dumps(found).encode()))
    except Exception as exception:  # the runtime's exceptions share no base; the host reports it
        error = str(exception).strip() or type(exception).__name__
    sys.stdout.write(json.dumps({"error": error}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
