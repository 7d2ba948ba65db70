"""What runs models on a device: its own Python, or the native runner. Both answer the same calls."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runtime_tests.emulation.guest import load_tensors
from runtime_tests.emulation.inputs import Samples
from tools.device_bench.bundle import Python, add_file, add_json, add_modules, add_samples, describe, run_module
from tools.device_bench.native import Native, add_native, pack_tensors, run_native, setting_words, unpack_tensors
from tools.device_bench.transport import Transport

__all__ = ["Job", "NativeRunner", "PythonRunner", "Runner"]


@dataclass(frozen=True)
class Job:
    """What is to run.

    Attributes:
        models: files below the folder on the device.
        settings: of the session that gives outputs, for each model.
        threads, warm, seconds: of the turns.
    """

    models: tuple[str, ...]
    settings: tuple[Mapping[str, str], ...]
    threads: int
    warm: int
    seconds: float


class Runner(Protocol):
    """One way to run models in a folder on a device. Answers are dictionaries with ``onnxruntime`` and ``error``, which may be None."""

    def add_program(self, archive: tarfile.TarFile) -> None:
        """Add what runs, to be sent first."""

    def about(self) -> dict[str, Any]:
        """What is there: ``machine``, and versions of ``onnxruntime``, ``python`` and ``numpy`` as far as there are."""

    def add_job(self, archive: tarfile.TarFile, job: Job, samples: Samples, scratch: Path) -> None:
        """Add samples, and what else the job needs."""

    def once(self, job: Job, place: int | None, mask: str | None) -> dict[str, Any]:
        """Run all samples through a model, or none to see what a process takes without one; the answer has ``peak``, in bytes."""

    def outputs(self, place: int, scratch: Path) -> Samples:
        """What a model gave, along axis 0."""

    def turns(self, job: Job, mask: str | None) -> dict[str, Any]:
        """Run all models in turns; the answer has ``times``, milliseconds of each run by model."""


@dataclass(frozen=True)
class PythonRunner:
    """The device's Python, with NumPy and ONNX Runtime."""

    device: Transport
    folder: str
    python: Python

    def add_program(self, archive: tarfile.TarFile) -> None:
        """See :class:`Runner`."""
        add_modules(archive)

    def about(self) -> dict[str, Any]:
        """See :class:`Runner`."""
        return describe(self.device, self.python, self.folder)

    def add_job(self, archive: tarfile.TarFile, job: Job, samples: Samples, scratch: Path) -> None:
        """See :class:`Runner`."""
        add_samples(archive, "samples.npz", samples, scratch)
        paths = [f"{self.folder}/{model}" for model in job.models]
        shared = {"samples": f"{self.folder}/samples.npz"}
        for place, (path, settings) in enumerate(zip(paths, job.settings, strict=True)):
            outputs = f"{self.folder}/outputs{place}.npz"
            add_json(archive, f"child{place}.json", {**shared, "model": path, "settings": dict(settings), "outputs": outputs})
        add_json(archive, "process.json", {**shared, "model": None, "settings": {}, "outputs": None})
        times = {"threads": job.threads, "warm": job.warm, "seconds": job.seconds}
        add_json(archive, "turns.json", {**shared, "models": paths, **times})

    def once(self, job: Job, place: int | None, mask: str | None) -> dict[str, Any]:
        """See :class:`Runner`."""
        name = "process.json" if place is None else f"child{place}.json"
        return run_module(self.device, self.python, self.folder, "runtime_tests.child", f"{self.folder}/{name}", mask=mask)

    def outputs(self, place: int, scratch: Path) -> Samples:
        """See :class:`Runner`."""
        self.device.pull(f"{self.folder}/outputs{place}.npz", scratch / "outputs")
        return load_tensors(scratch / "outputs")

    def turns(self, job: Job, mask: str | None) -> dict[str, Any]:
        """See :class:`Runner`."""
        return run_module(self.device, self.python, self.folder, "tools.device_bench.runner", f"{self.folder}/turns.json", mask=mask)


@dataclass(frozen=True)
class NativeRunner:
    """ONNX Runtime's library and the native runner, for devices without Python."""

    device: Transport
    folder: str
    native: Native

    def add_program(self, archive: tarfile.TarFile) -> None:
        """See :class:`Runner`."""
        add_native(archive, self.native)

    def about(self) -> dict[str, Any]:
        """See :class:`Runner`."""
        return run_native(self.device, self.folder)

    def add_job(self, archive: tarfile.TarFile, job: Job, samples: Samples, scratch: Path) -> None:
        """See :class:`Runner`."""
        add_file(archive, "samples", pack_tensors(samples))

    def once(self, job: Job, place: int | None, mask: str | None) -> dict[str, Any]:
        """See :class:`Runner`."""
        words = [] if place is None else [f"{self.folder}/{job.models[place]}", *setting_words(job.settings[place])]
        samples, outputs = f"{self.folder}/samples", f"{self.folder}/outputs{'' if place is None else place}"
        return run_native(self.device, self.folder, "once", samples, outputs, *words, mask=mask)

    def outputs(self, place: int, scratch: Path) -> Samples:
        """See :class:`Runner`."""
        self.device.pull(f"{self.folder}/outputs{place}", scratch / "outputs")
        return unpack_tensors((scratch / "outputs").read_bytes())

    def turns(self, job: Job, mask: str | None) -> dict[str, Any]:
        """See :class:`Runner`."""
        times = [str(job.threads), str(job.warm), str(job.seconds)]
        models = [f"{self.folder}/{model}" for model in job.models]
        return run_native(self.device, self.folder, "turns", f"{self.folder}/samples", *times, *models, mask=mask)
