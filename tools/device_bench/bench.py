"""Run a float model and what was converted from it on a device: times in turns, memory, outputs, clock and temperature."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import ConverterError, ModelError
from converter.runtime.session import first_line
from runtime_tests.emulation.inputs import Samples
from tools.device_bench.bundle import Python, add_model, send
from tools.device_bench.native import Native
from tools.device_bench.runners import Job, NativeRunner, PythonRunner, Runner
from tools.device_bench.state import State, core_mask, fastest_cores, read_state
from tools.device_bench.transport import Transport, remote_folder

__all__ = ["Found", "Model", "Ran", "Settings", "measure"]


@dataclass(frozen=True)
class Model:
    """A model to run.

    Attributes:
        path: the file.
        external: files with its external data.
        settings: session settings for its outputs on a machine, by what ``platform.machine()`` says there.
    """

    path: Path
    external: tuple[Path, ...] = ()
    settings: Callable[[str], Mapping[str, str]] = lambda machine: {}


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        python: words that start the device's Python.
        native: what runs instead of Python, if it is given.
        threads: of each session.
        cores: numbers of the cores to stay on; None for the fastest, as many as threads; empty for no pinning.
        warm: runs of each model before any is timed.
        seconds: to go on with turns.
    """

    python: Python = ("python3",)
    native: Native | None = None
    threads: int = 1
    cores: tuple[int, ...] | None = None
    warm: int = 5
    seconds: float = 10.0


@dataclass(frozen=True, eq=False)
class Ran:
    """What one model did.

    Attributes:
        times: milliseconds of each run on the first sample, in the order of the turns.
        peak: resident memory of a fresh process that loads and runs it, in bytes.
        outputs: of all samples, along axis 0.
    """

    times: tuple[float, ...]
    peak: int
    outputs: Samples


@dataclass(frozen=True, eq=False)
class Found:
    """What a device did.

    Attributes:
        device: how it was reached.
        machine: its architecture, as Python says there.
        versions: of ``onnxruntime`` there, and of ``python`` and ``numpy`` if they ran.
        cores: on which the models ran; None if the device does not tell.
        before: the device before the turns.
        after: right after the last one.
        process: memory of a process that loads no model, in bytes.
        models: in the order of the request.
    """

    device: str
    machine: str
    versions: Mapping[str, str]
    cores: tuple[int, ...] | None
    before: State
    after: State
    process: int
    models: tuple[Ran, ...]


def measure(
    device: Transport, models: Sequence[Model], samples: Samples, settings: Settings, tell: Callable[[str], None] = lambda text: None
) -> Found:
    """Push, run, bring back, and remove everything again.

    Args:
        samples: inputs of all models, samples along axis 0.
        tell: called with what is done next.

    Raises:
        UsageError: the device cannot be reached, or cores are no cores.
        ConverterError: a command fails there, for instance since ONNX Runtime is missing.
        ModelError: a model does not run there.
    """
    with remote_folder(device) as folder, tempfile.TemporaryDirectory(prefix="device-") as name:
        scratch = Path(name)
        state = read_state(device)
        wanted = fastest_cores(state.cores, settings.threads) if settings.cores is None else settings.cores
        mask = core_mask(wanted) if wanted else None
        runner: Runner = (
            PythonRunner(device, folder, settings.python) if settings.native is None else NativeRunner(device, folder, settings.native)
        )
        tell("sending the runner")
        send(device, folder, scratch, runner.add_program)
        about = runner.about()
        if about["error"] is not None:
            raise ConverterError(f"ONNX Runtime does not load on the device: {about['error']}", where=device.name)
        tell("sending the models")
        jobs: list[Job] = []

        def add(archive: tarfile.TarFile) -> None:
            names = tuple(add_model(archive, f"model{place}", model.path, model.external) for place, model in enumerate(models))
            kernels = tuple(model.settings(about["machine"]) for model in models)
            jobs.append(Job(names, kernels, settings.threads, settings.warm, settings.seconds))
            runner.add_job(archive, jobs[0], samples, scratch)

        send(device, folder, scratch, add)
        (job,) = jobs
        process = _peak(runner.once(job, None, mask), device, "no model")
        peaks, outputs = [], []
        for place, model in enumerate(models):
            tell(f"outputs and memory of {model.path.name}")
            peaks.append(_peak(runner.once(job, place, mask), device, str(model.path)))
            outputs.append(runner.outputs(place, scratch))
        tell(f"turns, for {settings.seconds:g} s")
        before = read_state(device)
        turned = runner.turns(job, mask)
        after = read_state(device)
    if turned["error"] is not None:
        raise ModelError(f"a model does not run on the device: {first_line(turned['error'])}", where=device.name)
    ran = tuple(Ran(tuple(times), peak, output) for times, peak, output in zip(turned["times"], peaks, outputs, strict=True))
    used = turned.get("cores", list(wanted) if wanted else None)
    versions: dict[str, str] = {part: about[part] for part in ("python", "numpy", "onnxruntime") if part in about}
    return Found(device.name, about["machine"], versions, None if used is None else tuple(used), before, after, process, ran)


def _peak(told: Mapping[str, Any], device: Transport, model: str) -> int:
    """Bytes at the peak of a process that ran a model.

    Raises:
        ModelError: it did not run.
    """
    if told["error"] is not None:
        what = f"the model does not run in ONNX Runtime {told['onnxruntime']} on the device: {first_line(told['error'])}"
        raise ModelError(what, where=f"{device.name}: {model}", hint="see docs/runtimes.md for versions that run it")
    return int(told["peak"])
