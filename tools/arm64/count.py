"""Count the ARM64 instructions of one inference: ``python -m tools.arm64.count MODEL.onnx [MODEL.onnx ...] --core CORE``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from converter.cli.command import Parser, exit_code
from converter.errors import ModelError, UsageError
from converter.load.files import check_outputs, write_files
from tools.arm64.emulator import CORES, Job, JobResult, Machine, check_core, emulate
from tools.arm64.environment import Environment, environment
from tools.arm64.guest import save_tensors
from tools.arm64.inputs import Samples, model_inputs, read_model, read_samples, seeded_samples

__all__ = ["Count", "count", "counted", "counts_json", "main", "model_samples", "print_counts", "runs_as"]


@dataclass(frozen=True)
class Count:
    """What one inference of a model takes on a core.

    Attributes:
        model: the file.
        digest: sha256 of the file (hex).
        instructions: of each counted run, one after the other.
        machine: what ran it.
    """

    model: Path
    digest: str
    instructions: tuple[int, ...]
    machine: Machine

    @property
    def median(self) -> float:
        """Instructions of one run."""
        return statistics.median(self.instructions)


def count(
    models: Sequence[Path], core: str, *, inputs: Path | None = None, seed: int = 0, runs: int = 1, env: Environment | None = None
) -> list[Count]:
    """Count the guest instructions of inferences on one thread of an emulated core.

    Each model is run once to warm up for every sample, and then counted. From call to return of the runtime's ``run``: what
    Python adds is about 0.03 million instructions.

    Args:
        models: float or quantized models.
        core: one of :data:`tools.arm64.emulator.CORES`.
        inputs: an .npz with an array for each input of every model, with an axis in front for several samples;
            by default one sample of seeded noise for each model.
        seed: of the noise.
        runs: counted runs of each sample.
        env: what :mod:`tools.arm64.setup` made; by default the one in the default folder.

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
            jobs.append(Job(model, (file,), runs=runs))
        results, machine = emulate(jobs, core, env or environment())
    return [counted(job, result, machine) for job, result in zip(jobs, results, strict=True)]


def model_samples(model: Path, inputs: Path | None, samples: int, seed: int) -> Samples:
    """What to run a model on: arrays from a file, or seeded noise.

    Raises:
        UsageError: the arrays do not fit, or an open size is not settled by arrays.
        ModelError: the model cannot be read.
    """
    wanted = model_inputs(read_model(model))
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
    return Count(job.model, hashlib.sha256(job.model.read_bytes()).hexdigest(), result.instructions, machine)


def counts_json(counts: Sequence[Count]) -> str:
    """Counts as JSON: versions and core, then for each model its digest and every run."""
    machine = counts[0].machine
    models = [
        {
            "model": str(c.model),
            "sha256": c.digest,
            "instructions": c.instructions,
            "median": c.median,
            "ratio": c.median / counts[0].median,
        }
        for c in counts
    ]
    return json.dumps({"machine": dataclasses.asdict(machine), "models": models}, indent=2) + "\n"


def runs_as(machine: Machine) -> str:
    """The machine in one line."""
    return f"{machine.core} ({' '.join(machine.capabilities)}), ONNX Runtime {machine.onnxruntime}, one thread"


def print_counts(console: Console, counts: Sequence[Count]) -> None:
    """A table: millions of instructions, and the ratio to the first model."""
    machine = counts[0].machine
    console.print(runs_as(machine))
    table = Table()
    table.add_column("model", overflow="fold")
    for heading in ("M instructions", "ratio"):
        table.add_column(heading, justify="right")
    for found in counts:
        table.add_row(escape(str(found.model)), f"{found.median / 1e6:.3f}", f"{found.median / counts[0].median:.3f}")
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Count and print; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.arm64.count", description="Count the ARM64 instructions of one inference, by emulation.")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.onnx", help="ratios are to the first one")
    parser.add_argument("--core", default="cortex-a76", metavar="CORE", help=f"{' | '.join(CORES)} (default cortex-a76)")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="counted runs, after one to warm up (default 1)")
    parser.add_argument("--inputs", type=Path, metavar="NPZ", help="arrays to run on (default: seeded noise)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise (default 0)")
    parser.add_argument("--per-op", action="store_true", help="of one model: what each node and each type of node takes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the set-up")
    flags = parser.parse_args(arguments)
    if flags.json is not None:
        check_outputs({"--json": flags.json}, {f"MODEL {place}": model for place, model in enumerate(flags.models, 1)})
    env = environment(flags.root)
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    if flags.per_op:
        text = _per_op(flags.models, flags.core, flags.inputs, flags.seed, env, console)
    else:
        counts = count(flags.models, flags.core, inputs=flags.inputs, seed=flags.seed, runs=flags.runs, env=env)
        print_counts(console, counts)
        text = counts_json(counts)
    if flags.json is not None:
        write_files({Path(os.path.abspath(flags.json)): text.encode()})


def _per_op(models: Sequence[Path], core: str, inputs: Path | None, seed: int, env: Environment, console: Console) -> str:
    from tools.arm64.per_op import count_per_op, per_op_json, print_per_op  # it builds on this module

    if len(models) != 1:
        raise UsageError(f"--per-op takes one model, not {len(models)}", where="--per-op", hint="run it for each model by itself")
    found = count_per_op(models[0], core, inputs=inputs, seed=seed, env=env)
    print_per_op(console, found)
    return per_op_json(found)


if __name__ == "__main__":
    raise SystemExit(main())
