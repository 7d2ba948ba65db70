"""What runs inside the emulated ARM64 machine: ``python guest.py JOBS.json REPORT.json``. Needs NumPy and ONNX Runtime only.

JOBS.json is a list of jobs (``runtime_tests.emulation.emulator.Job`` as a dictionary). Each model is opened on one thread, run once to
warm up, and then run again between two marks for every sample and repetition; the counting plugin writes the marks down.
Regions are numbered in the order in which they are marked. REPORT.json says what was installed, what the core offers, and
for every job how many regions it marked and, if it failed, why.
"""

from __future__ import annotations

import ctypes
import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

__all__ = ["BEGIN", "END", "HARDWARE_CAPABILITIES", "MARK", "load_tensors", "main", "run_jobs", "save_tensors"]

MARK = 100003
"""Number of the marking system call; far above those of any kernel."""

BEGIN, END = 0, 1

Tensors = dict[str, npt.NDArray[Any]]
Mark = Callable[[int, int], None]

HARDWARE_CAPABILITIES = {
    16: {"asimd": 1, "fphp": 9, "asimdhp": 10, "asimdrdm": 12, "asimddp": 20, "sve": 22, "asimdfhm": 23},
    26: {"sve2": 1, "svei8mm": 9, "i8mm": 13, "bf16": 14, "sme": 23},
}
"""Bits of the auxiliary vector's entries AT_HWCAP and AT_HWCAP2 (Linux, arch/arm64/include/uapi/asm/hwcap.h)."""


def save_tensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write tensors under any names, such as the paths that exporters make of them, as an .npz of ``names`` and ``0``, ``1``, ..."""
    arrays: dict[str, Any] = {str(place): tensor for place, tensor in enumerate(tensors.values())}
    np.savez(path, names=np.array(list(tensors), dtype=np.str_), **arrays)


def load_tensors(path: Path, wanted: Sequence[str] | None = None) -> Tensors:
    """Read what :func:`save_tensors` wrote: all tensors, or those of the wanted ones that are there."""
    with np.load(path) as file:
        names = [str(name) for name in file["names"]]
        return {name: file[str(place)] for place, name in enumerate(names) if wanted is None or name in wanted}


def marker() -> Mark:
    """The marking system call as a function of region and edge, with all that ctypes would look up looked up already."""
    call = ctypes.CDLL(None).syscall
    call.argtypes, call.restype = [ctypes.c_long] * 3, ctypes.c_long
    return lambda region, edge: call(MARK, region, edge)


def capabilities() -> list[str]:
    """Optional instructions that the core reports; meaningful on ARM64 only."""
    if platform.machine() != "aarch64":
        return []
    call = ctypes.CDLL(None).getauxval
    call.argtypes, call.restype = [ctypes.c_ulong], ctypes.c_ulong
    return [name for entry, bits in HARDWARE_CAPABILITIES.items() for name, bit in bits.items() if call(entry) >> bit & 1]


def run_jobs(jobs: Sequence[Mapping[str, Any]], mark: Mark) -> list[dict[str, Any]]:
    """Run the jobs in order; for each one the number of regions it marked and the error that ended it, or None."""
    results = []
    regions = iter(range(1 << 62))
    for job in jobs:
        marked: list[int] = []
        error = None
        try:
            _run_job(job, mark, regions, marked)
        except Exception as exception:  # a job that fails must not take the others with it; the host tells the user
            error = str(exception).strip() or type(exception).__name__
        results.append({"regions": marked, "error": error})
    return results


def _run_job(job: Mapping[str, Any], mark: Mark, regions: Iterator[int], marked: list[int]) -> None:
    session = _open(job)
    names = [value.name for value in session.get_inputs()]
    samples: Tensors = {}
    for path in job["inputs"]:
        samples |= load_tensors(Path(path), names)
    count = min((len(tensor) for tensor in samples.values()), default=1)
    outputs: dict[str, list[npt.NDArray[Any]]] = {value.name: [] for value in session.get_outputs()}
    for place in range(count):
        # in the order of the node's inputs, of which a view takes the memory of the first
        feed = {name: np.ascontiguousarray(samples[name][place]) for name in names if name in samples}
        for name, value in zip(outputs, session.run(list(outputs), feed), strict=True):
            outputs[name].append(np.asarray(value))
        run = _bound(session, feed, {name: values[-1] for name, values in outputs.items()}, job["view"]) if job["bound"] else None
        for _ in range(job["runs"]):
            region = next(regions)
            if run is None:
                _marked_run(session, list(outputs), feed, mark, region)
            else:
                _marked_call(run, mark, region)
            marked.append(region)
    if job["outputs"] is not None:
        save_tensors(Path(job["outputs"]), {name: np.stack(values) for name, values in outputs.items()})


def _marked_run(session: Any, names: list[str], feed: Tensors, mark: Mark, region: int) -> None:
    mark(region, BEGIN)
    session.run(names, feed)
    mark(region, END)


def _marked_call(run: Callable[[], None], mark: Mark, region: int) -> None:
    run()  # once more to warm up: binding is another way into the runtime
    mark(region, BEGIN)
    run()
    mark(region, END)


def _open(job: Mapping[str, Any]) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_DISABLE_ALL if job["as_is"] else level.ORT_ENABLE_ALL
    if job["optimised"] is not None:
        options.optimized_model_filepath = job["optimised"]
    return onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])


def _bound(session: Any, feed: Tensors, outputs: Tensors, view: bool) -> Callable[[], None]:
    """A run that reads from and writes to given memory, so that nothing is allocated or copied on the way in and out.

    With ``view`` the first output lies where the first input does, as the runtime lays them out within a model.
    """
    binding = session.io_binding()
    for name, value in feed.items():
        _bind(binding.bind_input, name, value, value)
    for place, (name, value) in enumerate(outputs.items()):
        memory = next(iter(feed.values())) if view and place == 0 and feed else value
        _bind(binding.bind_output, name, value, memory)
    borrowed = (feed, outputs)

    def run() -> None:
        assert borrowed  # the binding has addresses only: the memory has to live as long as this function
        session.run_with_iobinding(binding)

    return run


def _bind(bind: Callable[..., None], name: str, value: npt.NDArray[Any], memory: npt.NDArray[Any]) -> None:
    bind(name, "cpu", 0, value.dtype.type, value.shape, memory.ctypes.data)


def main(arguments: Sequence[str]) -> int:
    """Run the jobs of a file and write the report; 0 even if jobs failed, as the report says so."""
    jobs, report = map(Path, arguments)
    results = run_jobs(json.loads(jobs.read_text()), marker())
    content = {
        "jobs": results,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "capabilities": capabilities(),
    }
    report.write_text(json.dumps(content))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
