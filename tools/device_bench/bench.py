"""Run a float model and what was converted from it on a device: times in turns, memory, outputs, clock and temperature."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import ModelError
from converter.runtime.session import first_line
from runtime_tests.emulation.guest import load_tensors
from runtime_tests.emulation.inputs import Samples
from tools.device_bench.bundle import Python, add_json, add_model, add_modules, add_samples, describe, run_module, send
from tools.device_bench.state import State, core_mask, fastest_cores, read_state
from tools.device_bench.transport import Transport, remote_folder

__all__ = ["Found", "Model", "Ran", "Settings", "measure"]

_SAMPLES = "samples.npz"


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
        threads: of each session.
        cores: numbers of the cores to stay on; None for the fastest, as many as threads; empty for no pinning.
        warm: runs of each model before any is timed.
        seconds: to go on with turns.
    """

    python: Python = ("python3",)
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
        versions: of ``python``, ``numpy`` and ``onnxruntime`` there.
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
        tell("sending the runner")
        send(device, folder, scratch, add_modules)
        about = describe(device, settings.python, folder)
        tell("sending the models")
        names: list[str] = []

        def add(archive: tarfile.TarFile) -> None:
            names.extend(add_model(archive, f"model{place}", model.path, model.external) for place, model in enumerate(models))
            add_samples(archive, _SAMPLES, samples, scratch)
            for place, (model, file) in enumerate(zip(models, names, strict=True)):
                add_json(archive, f"child{place}.json", _child(folder, file, place, model.settings(about["machine"])))
            add_json(archive, "process.json", _child(folder, None, 0, {}))
            turns = {"models": [f"{folder}/{file}" for file in names], "samples": f"{folder}/{_SAMPLES}"}
            add_json(archive, "turns.json", {**turns, "threads": settings.threads, "warm": settings.warm, "seconds": settings.seconds})

        send(device, folder, scratch, add)
        process = _child_ran(device, settings.python, folder, "process.json", "no model", mask)
        peaks, outputs = [], []
        for place, model in enumerate(models):
            tell(f"outputs and memory of {model.path.name}")
            peaks.append(_child_ran(device, settings.python, folder, f"child{place}.json", str(model.path), mask))
            device.pull(f"{folder}/outputs{place}.npz", scratch / "outputs.npz")
            outputs.append(load_tensors(scratch / "outputs.npz"))
        tell(f"turns, for {settings.seconds:g} s")
        before = read_state(device)
        turned = run_module(device, settings.python, folder, "tools.device_bench.runner", f"{folder}/turns.json", mask=mask)
        after = read_state(device)
    if turned["error"] is not None:
        raise ModelError(f"a model does not run on the device: {first_line(turned['error'])}", where=device.name)
    ran = tuple(Ran(tuple(times), peak, output) for times, peak, output in zip(turned["times"], peaks, outputs, strict=True))
    cores = None if turned["cores"] is None else tuple(turned["cores"])
    versions = {part: about[part] for part in ("python", "numpy", "onnxruntime")}
    return Found(device.name, about["machine"], versions, cores, before, after, process, ran)


def _child(folder: str, model: str | None, place: int, settings: Mapping[str, str]) -> dict[str, Any]:
    """A job of :mod:`runtime_tests.child`."""
    return {
        "model": None if model is None else f"{folder}/{model}",
        "settings": dict(settings),
        "samples": f"{folder}/{_SAMPLES}",
        "outputs": f"{folder}/outputs{place}.npz",
    }


def _child_ran(device: Transport, python: Python, folder: str, job: str, model: str, mask: str | None) -> int:
    """Bytes at the peak of a process that ran a job."""
    told = run_module(device, python, folder, "runtime_tests.child", f"{folder}/{job}", mask=mask)
    if told["error"] is not None:
        what = f"the model does not run in ONNX Runtime {told['onnxruntime']} on the device: {first_line(told['error'])}"
        raise ModelError(what, where=f"{device.name}: {model}", hint="see docs/runtimes.md for versions that run it")
    return int(told["peak"])
