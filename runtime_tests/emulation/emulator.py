"""Run jobs in the emulated ARM64 machine and bring back what the plugin counted."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import ConverterError, UsageError
from runtime_tests.emulation import guest
from runtime_tests.emulation.blocks import Blocks, read_blocks
from runtime_tests.emulation.command import command_line, guest_variables, lay_out_root
from runtime_tests.emulation.cores import check_core
from runtime_tests.emulation.environment import Environment
from runtime_tests.emulation.external import run_program
from runtime_tests.emulation.setup import require

__all__ = ["Job", "JobResult", "Machine", "emulate", "read_marks"]


@dataclass(frozen=True)
class Job:
    """One model to run.

    Attributes:
        model: the file.
        inputs: files of :func:`runtime_tests.emulation.guest.save_tensors`; samples along a new axis 0.
        outputs: where the outputs go, in the same form.
        optimised: where the runtime writes the graph that it made for the core.
        as_is: run the graph as it stands, without optimisation.
        bound: read from and write to given memory, without the copies at the model's borders.
        view: with ``bound``, the first output lies where the first input does.
        runs: marked runs for each sample.
        blocks: count the executions of each block of instructions, too.
    """

    model: Path
    inputs: tuple[Path, ...] = ()
    outputs: Path | None = None
    optimised: Path | None = None
    as_is: bool = False
    bound: bool = False
    view: bool = False
    runs: int = 1
    blocks: bool = False


@dataclass(frozen=True)
class JobResult:
    """What came of a job.

    Attributes:
        instructions: of each marked run, sample by sample.
        error: why the job ended early, if it did.
        blocks: of each marked run in the same order; empty if the job did not ask for them.
    """

    instructions: tuple[int, ...]
    error: str | None
    blocks: tuple[Blocks, ...] = ()


@dataclass(frozen=True)
class Machine:
    """What ran.

    Attributes:
        core: one of :data:`runtime_tests.emulation.cores.CORES`.
        capabilities: optional instructions the core reported, in Linux's words.
        onnxruntime, numpy, python: versions inside.
    """

    core: str
    capabilities: tuple[str, ...]
    onnxruntime: str
    numpy: str
    python: str

    def __str__(self) -> str:
        return f"{self.core} ({' '.join(self.capabilities)}), ONNX Runtime {self.onnxruntime}, one thread"


def emulate(jobs: Sequence[Job], core: str, env: Environment) -> tuple[list[JobResult], Machine]:
    """Run jobs in one process of the emulated machine.

    Raises:
        UsageError: unknown core, or the environment is not set up.
        ConverterError: the machine itself failed. A job that fails says so in its result instead.
    """
    check_core(core)
    require(env)
    with tempfile.TemporaryDirectory(prefix="arm64-") as name:
        folder = Path(name)
        job_list, report, marks, blocks = (folder / part for part in ("jobs.json", "report.json", "marks.txt", "blocks.txt"))
        if "," in str(marks) or "," in str(env.plugin):
            raise UsageError("the emulator takes no paths with commas", where=f"{marks}, {env.plugin}", hint="set TMPDIR, or --root")
        job_list.write_text(json.dumps([dataclasses.asdict(job) for job in jobs], default=_path_text))
        root = lay_out_root(env, core, folder / "root")
        arguments = ["-B", str(Path(guest.__file__).absolute()), str(job_list), str(report)]
        with_blocks = any(job.blocks for job in jobs)
        command = command_line(env, core, root, marks, arguments, blocks if with_blocks else None)
        hint = "run it again; if it stays so, run python -m tools.arm64.setup in a new folder"
        run_program(command, "the emulated machine", hint=hint, install="qemu-user", variables=guest_variables(env))
        content = json.loads(report.read_text())
        counted = read_marks(marks.read_text())
        executed = _blocks_in(blocks) if with_blocks else {}
    results = [_result(done, counted, executed if job.blocks else None) for job, done in zip(jobs, content["jobs"], strict=True)]
    versions = {part: content[part] for part in ("onnxruntime", "numpy", "python")}
    return results, Machine(core, tuple(content["capabilities"]), **versions)


def _blocks_in(path: Path) -> dict[int, Blocks]:
    with path.open() as lines:
        return read_blocks(lines)


def _result(done: dict[str, Any], counted: dict[int, int], executed: dict[int, Blocks] | None) -> JobResult:
    regions = done["regions"]
    blocks = () if executed is None else tuple(executed[region] for region in regions)
    return JobResult(tuple(counted[region] for region in regions), done["error"], blocks)


def _path_text(value: Any) -> str:
    """Absolute, as the guest need not be where we are."""
    return str(Path(value).absolute())


def read_marks(text: str) -> dict[int, int]:
    """Instructions of each region, from the lines that the plugin writes. Regions may lie within others.

    Regions that did not end are left out: what ran in them failed.

    Raises:
        ConverterError: a second thread lived while a region was counted, so that counts are not exact.
    """
    begun: dict[int, int] = {}
    counted: dict[int, int] = {}
    for line in text.splitlines():
        region, edge, instructions, threads = map(int, line.split())
        if threads != 1:
            raise ConverterError(f"{threads} threads were alive in region {region}", hint="counts are exact for one thread only")
        if edge == guest.BEGIN:
            begun[region] = instructions
        else:
            counted[region] = instructions - begun[region]
    return counted
