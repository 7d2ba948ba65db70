"""Count the ARM64 instructions of one inference, by emulation."""

from __future__ import annotations

import hashlib
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.errors import ModelError, UsageError
from runtime_tests.emulation import emulator
from runtime_tests.emulation.blocks import Blocks
from runtime_tests.emulation.cores import check_core
from runtime_tests.emulation.emulator import Job, JobResult, Machine
from runtime_tests.emulation.environment import Environment, environment
from runtime_tests.emulation.guest import save_tensors
from runtime_tests.emulation.inputs import Samples, file_inputs, read_samples, seeded_samples

__all__ = ["Count", "count", "counted", "model_samples"]


@dataclass(frozen=True)
class Count:
    """What one inference of a model takes on a core.

    Attributes:
        model: the file.
        digest: sha256 of the file (hex).
        instructions: of each counted run, one after the other.
        machine: what ran it.
        blocks: of each counted run, if they were asked for.
    """

    model: Path
    digest: str
    instructions: tuple[int, ...]
    machine: Machine
    blocks: tuple[Blocks, ...] = ()

    @property
    def median(self) -> float:
        """Instructions of one run."""
        return statistics.median(self.instructions)


def count(
    models: Sequence[Path],
    core: str,
    *,
    inputs: Path | None = None,
    seed: int = 0,
    runs: int = 1,
    env: Environment | None = None,
    blocks: bool = False,
) -> list[Count]:
    """Count the guest instructions of inferences on one thread of an emulated core.

    Each model is run once to warm up for every sample, and then counted. From call to return of the runtime's ``run``: what
    Python adds is about 0.03 million instructions.

    Args:
        models: float or quantized models.
        core: one of :data:`runtime_tests.emulation.cores.CORES`.
        inputs: an .npz with an array for each input of every model, with an axis in front for several samples;
            by default one sample of seeded noise for each model.
        runs: counted runs of each sample.
        env: what :mod:`runtime_tests.emulation.setup` made; by default the one in the default folder.
        blocks: count the executions of each block of instructions, too.

    Raises:
        UsageError: unknown core, unfit inputs, or the environment is not set up.
        ModelError: a model cannot be read, or the runtime inside does not run it.
    """
    check_core(core)
    if runs < 1 or not models:
        raise UsageError("there is nothing to count", where=f"{len(models)} models, {runs} runs", hint="ask for 1 or more")
    samples = [model_samples(model, inputs, 1, seed) for model in models]
    with tempfile.TemporaryDirectory(prefix="arm64-") as folder:
        jobs = []
        for place, (model, feeds) in enumerate(zip(models, samples, strict=True)):
            file = Path(folder, f"{place}.npz")
            save_tensors(file, feeds)
            jobs.append(Job(model, (file,), runs=runs, blocks=blocks))
        results, machine = emulator.emulate(jobs, core, env or environment())
    return [counted(job, result, machine) for job, result in zip(jobs, results, strict=True)]


def model_samples(model: Path, inputs: Path | None, samples: int, seed: int) -> Samples:
    """What to run a model on: arrays from a file, or seeded noise.

    Raises:
        UsageError: the arrays do not fit, or an open size is not settled by arrays.
        ModelError: the model cannot be read.
    """
    wanted = file_inputs(model)
    return seeded_samples(wanted, samples, seed) if inputs is None else read_samples(inputs, wanted)


def counted(job: Job, result: JobResult, machine: Machine) -> Count:
    """The count of a job that must not fail.

    Raises:
        ModelError: it did.
    """
    if result.error is not None:
        reason = result.error.splitlines()[0][:300]
        hint = f"see whether ONNX Runtime {machine.onnxruntime} runs the model"
        raise ModelError(f"it does not run on {machine.core}: {reason}", where=str(job.model), hint=hint)
    return Count(job.model, hashlib.sha256(job.model.read_bytes()).hexdigest(), result.instructions, machine, result.blocks)
