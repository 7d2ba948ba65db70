"""A stand-in for the emulated machine that runs the guest's code right here."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence

from runtime_tests.emulation import guest
from runtime_tests.emulation.emulator import Job, JobResult, Machine, read_marks
from runtime_tests.emulation.environment import Environment

PER_REGION = 1000
"""Instructions that the stand-in counts for each marked region."""

NOP = bytes.fromhex("1f2003d5")
"""The instruction that they all are, each a block of its own."""


def emulate_here(jobs: Sequence[Job], core: str, env: Environment) -> tuple[list[JobResult], Machine]:
    """Run jobs with this machine's runtime; every region takes as many instructions, which do nothing."""
    lines: list[str] = []
    ticks = itertools.count(0, PER_REGION)
    plain = json.loads(json.dumps([dataclasses.asdict(job) for job in jobs], default=str))
    results = guest.run_jobs(plain, lambda region, edge: lines.append(f"{region} {edge} {next(ticks)} 1"))
    counted = read_marks("\n".join(lines))
    found = [
        _result(job, tuple(counted[region] for region in done["regions"]), done["error"]) for job, done in zip(jobs, results, strict=True)
    ]
    return found, Machine(core, ("asimd",), "1.23.2", "2.4.6", "3.11.2")


def _result(job: Job, counted: tuple[int, ...], error: str | None) -> JobResult:
    return JobResult(counted, error, tuple({NOP: instructions} for instructions in counted) if job.blocks else ())
