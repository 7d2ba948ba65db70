"""Fixtures of these tests: a small model, and a stand-in for the emulated machine that runs the guest's code right here."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from converter.testing.models import hybrid_model
from tools.arm64 import compare, count, guest, per_op
from tools.arm64.emulator import Job, JobResult, Machine, read_marks
from tools.arm64.environment import Environment

PER_REGION = 1000
"""Instructions that the stand-in counts for each marked region."""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float hybrid network, ``image`` [1, 3, 32, 32] to ``logits`` [1, 10]. Do not write to it."""
    path = tmp_path_factory.mktemp("arm64") / "hybrid.onnx"
    path.write_bytes(hybrid_model().SerializeToString(deterministic=True))
    return path


def emulate_here(jobs: Sequence[Job], core: str, env: Environment) -> tuple[list[JobResult], Machine]:
    """Run jobs with this machine's runtime; every region takes as many instructions."""
    lines: list[str] = []
    ticks = itertools.count(0, PER_REGION)
    plain = json.loads(json.dumps([dataclasses.asdict(job) for job in jobs], default=str))
    results = guest.run_jobs(plain, lambda region, edge: lines.append(f"{region} {edge} {next(ticks)} 1"))
    counted = read_marks("\n".join(lines))
    found = [JobResult(tuple(counted[region] for region in result["regions"]), result["error"]) for result in results]
    return found, Machine(core, ("asimd",), "1.23.2", "2.4.6", "3.11.2")


@pytest.fixture
def no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that would start the emulator runs here instead."""
    for module in (count, per_op, compare):
        monkeypatch.setattr(module, "emulate", emulate_here)
