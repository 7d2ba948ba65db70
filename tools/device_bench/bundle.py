"""What goes to the device in one archive: models with their external data, samples, job files, and the modules that run there."""

from __future__ import annotations

import io
import json
import shlex
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from converter.errors import ConverterError, ModelError
from runtime_tests.emulation.guest import save_tensors
from runtime_tests.emulation.inputs import Samples
from tools.device_bench.transport import Transport

__all__ = ["START", "Python", "add_file", "add_json", "add_model", "add_modules", "add_samples", "describe", "run_module", "send"]

_ROOT = Path(__file__).resolve().parents[2]
_MODULES = (
    "runtime_tests/emulation/guest.py",
    "runtime_tests/child.py",
    "tools/device_bench/runner.py",
    "tools/device_bench/profiler.py",
)
_PACKAGES = ("runtime_tests", "runtime_tests/emulation", "tools", "tools/device_bench")

START = (
    "import runpy,sys;folder,module=sys.argv[1:3];del sys.argv[1:3];sys.path.insert(0,folder);"
    "runpy.run_module(module,run_name='__main__',alter_sys=True)"
)
"""Runs a module of a folder with whatever else the device's own path has, PYTHONPATH of the user's included."""

Python = Sequence[str]
"""Words that start the device's Python."""


def add_modules(archive: tarfile.TarFile) -> None:
    """Add what runs on the device; packages are empty there, as they import what only this machine has."""
    for package in _PACKAGES:
        add_file(archive, f"{package}/__init__.py", b"")
    for module in _MODULES:
        archive.add(_ROOT / module, module)


def add_model(archive: tarfile.TarFile, folder: str, model: Path, external: Sequence[Path]) -> str:
    """Add a model and its external data below a folder of its own; returns the model's name in the archive.

    Raises:
        ModelError: external data lies outside the model's folder.
    """
    home = model.resolve().parent
    for data in external:
        if not data.resolve().is_relative_to(home):
            raise ModelError("external data lies outside the model's folder", where=str(data), hint="move it beside the model")
        archive.add(data.resolve(), str(PurePosixPath(folder, *data.resolve().relative_to(home).parts)))
    archive.add(model.resolve(), f"{folder}/{model.name}")
    return f"{folder}/{model.name}"


def add_samples(archive: tarfile.TarFile, name: str, samples: Samples, scratch: Path) -> None:
    """Add samples along axis 0 as a file that the runner reads."""
    save_tensors(scratch / name, samples)
    archive.add(scratch / name, name)


def add_json(archive: tarfile.TarFile, name: str, content: Mapping[str, Any]) -> None:
    """Add a job."""
    add_file(archive, name, json.dumps(content).encode())


def add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def send(device: Transport, folder: str, scratch: Path, add: Callable[[tarfile.TarFile], None]) -> None:
    """Push an archive that ``add`` fills, and unpack it on the device.

    Args:
        scratch: a folder of this machine.
    """
    archive = scratch / "bundle.tar"
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as bundle:
        add(bundle)
    there = f"{folder}/bundle.tar"
    device.push(archive, there)
    device.run(["tar", "-x", "-f", there, "-C", folder])
    device.run(["rm", "-f", there])
    archive.unlink()


def run_module(device: Transport, python: Python, folder: str, module: str, *arguments: str, mask: str | None = None) -> dict[str, Any]:
    """Run a module of the folder and read the line of JSON that it ends with.

    Args:
        mask: of cores to stay on, as :func:`tools.device_bench.state.core_mask` gives it.

    Raises:
        ConverterError: the device's Python does not run it.
    """
    pinned = [] if mask is None else ["taskset", mask]
    told = device.run([*pinned, *python, "-c", START, folder, module, *arguments])
    try:
        found: dict[str, Any] = json.loads(told.strip().splitlines()[-1])
    except (ValueError, IndexError):
        what = "the device's Python does not answer as it should"
        raise ConverterError(
            what, where=f"{device.name}: {told.strip()[-100:]!r}", hint=f"see what {shlex.join(python)} is there"
        ) from None
    return found


def describe(device: Transport, python: Python, folder: str) -> dict[str, Any]:
    """What is installed on the device, as :mod:`tools.device_bench.runner` tells without a job.

    Raises:
        ConverterError: its Python cannot import what is needed.
    """
    try:
        return run_module(device, python, folder, "tools.device_bench.runner")
    except ConverterError as error:
        what = f"the device has no Python that can import NumPy and ONNX Runtime: {error.what.rpartition(': ')[2]}"
        hint = "install both there (pip install numpy onnxruntime), or name another one with --python"
        raise ConverterError(what, where=f"{device.name}: {shlex.join(python)}", hint=hint) from None
