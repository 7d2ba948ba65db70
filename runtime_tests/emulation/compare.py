"""Compare a model's outputs between ARM64 cores and this machine."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from converter.errors import UsageError
from converter.runtime.session import open_session, run_session
from converter.targets import find_target
from runtime_tests.emulation import emulator
from runtime_tests.emulation.cores import check_core
from runtime_tests.emulation.count import counted, model_samples
from runtime_tests.emulation.emulator import Job
from runtime_tests.emulation.environment import Environment, environment
from runtime_tests.emulation.guest import load_tensors, save_tensors
from runtime_tests.emulation.inputs import Samples

__all__ = ["Difference", "compare", "difference"]


@dataclass(frozen=True)
class Difference:
    """How one output differs between a machine and the reference core, over all samples.

    Attributes:
        machine: a core, or this machine's architecture.
        onnxruntime: version that ran there.
        output: name.
        largest: largest absolute difference.
        scale: largest absolute value of the reference.
        predictions: how many rows there are whose largest entry is looked at; 0 if the output has no rows of two or more.
        equal: in how many of them it is at the same place.
    """

    machine: str
    onnxruntime: str
    output: str
    largest: float
    scale: float
    predictions: int
    equal: int


def difference(machine: str, version: str, output: str, wanted: npt.NDArray[Any], got: npt.NDArray[Any]) -> Difference:
    """Compare an output, samples along axis 0; NaN differs from everything.

    Predictions are made along the last axis where that can be one of class scores: [samples, batch, (positions,) classes].
    """
    x, y = wanted.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        distance = np.where(x == y, 0.0, np.abs(x - y))  # infinities of one sign are equal
    rows = 2 <= x.ndim <= 4 and x.shape[-1] > 1
    same = x.argmax(-1) == y.argmax(-1) if rows else np.zeros(0, np.bool_)
    return Difference(
        machine,
        version,
        output,
        float(distance.max(initial=0.0)),
        float(np.abs(x).max(initial=0.0)),
        same.size,
        int(np.count_nonzero(same)),
    )


def compare(
    model: Path,
    cores: Sequence[str],
    *,
    target: str = "arm64",
    inputs: Path | None = None,
    samples: int = 1,
    seed: int = 0,
    env: Environment | None = None,
) -> list[Difference]:
    """Run a model on each core and on this machine, and compare everything with the first core.

    Args:
        model: float or quantized.
        cores: of :data:`runtime_tests.emulation.cores.CORES`; the first is the reference.
        target: whose settings this machine's session gets, so that it runs the kernels of that target.
        inputs: an .npz with an array for each input, with an axis in front for several samples; by default seeded noise.
        env: what :mod:`runtime_tests.emulation.setup` made; by default the one in the default folder.

    Raises:
        UsageError: unknown core or target, unfit inputs, or the environment is not set up.
        ModelError: the model cannot be read, or does not run somewhere.
    """
    if not cores or samples < 1:
        raise UsageError("there is nothing to compare", where=f"{len(cores)} cores, {samples} samples", hint="ask for 1 or more")
    for core in cores:
        check_core(core)
    settings = find_target(target).session_settings.get(platform.machine(), {})
    feeds = model_samples(model, inputs, samples, seed)
    ran = [_on_core(model, feeds, core, env or environment()) for core in dict.fromkeys(cores)]
    ran.append(_here(model, feeds, settings))
    _, _, reference = ran[0]
    return [difference(machine, version, name, reference[name], got[name]) for machine, version, got in ran[1:] for name in reference]


def _on_core(model: Path, feeds: Samples, core: str, env: Environment) -> tuple[str, str, Samples]:
    with tempfile.TemporaryDirectory(prefix="arm64-") as folder:
        job = Job(model, (Path(folder, "inputs.npz"),), outputs=Path(folder, "outputs.npz"), runs=0)
        save_tensors(job.inputs[0], feeds)
        (result,), machine = emulator.emulate([job], core, env)
        counted(job, result, machine)
        return core, machine.onnxruntime, load_tensors(Path(folder, "outputs.npz"))


def _here(model: Path, feeds: Samples, settings: Mapping[str, str]) -> tuple[str, str, Samples]:
    session = open_session(model, threads=1, settings=settings)
    count = min(map(len, feeds.values()), default=1)
    runs = [run_session(session, {name: array[place] for name, array in feeds.items()}) for place in range(count)]
    return platform.machine(), onnxruntime.__version__, {name: np.stack([run[name] for run in runs]) for name in runs[0]}
