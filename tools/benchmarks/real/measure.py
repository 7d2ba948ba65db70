"""Measure one row: make the model in a process of its own, run it beside float, and judge both on the same images."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.runtime.session import open_session
from runtime_tests.emulation.count import count
from tools.benchmarks.real.rows import FLOAT, Row, as_text
from tools.benchmarks.real.scores import decibels, error_of_difference
from tools.benchmarks.real.tasks import TASKS, Sample, Task
from tools.processes import run_limited

__all__ = ["Run", "measure_row"]

Integers = npt.NDArray[np.integer]

_ROOT = Path(__file__).parents[3]
_SECONDS, _MEGABYTES = 3600.0, 12000.0
_CORE = "cortex-a76"


@dataclass(frozen=True)
class Run:
    """What all rows share.

    Attributes:
        data: folder of networks and images.
        folder: for models.
        samples: how many calibrate.
        threads: of the runtime, when images are judged.
        count: count instructions too, where the emulated machine is set up.
    """

    data: Path
    folder: Path
    samples: int
    threads: int
    count: bool


@dataclass(frozen=True)
class _Answers:
    """What is kept of the answers of two models, and what is known of the images."""

    wanted: list[Any]
    got: list[Any]
    truths: list[Any]
    groups: list[str]
    sqnr_db: float


def measure_row(run: Run, row: Row) -> Row:
    """The row with what was measured; what goes wrong is its remark."""
    task = TASKS[row.network]
    source = run.data / task.model
    array, taken = task.calibration(run.data, int(row.choice))
    converted = source
    if row.method != FLOAT:
        calib = run.folder / f"{row.network}_{row.choice}.npz"
        arrays: dict[str, Any] = {task.input: array}
        np.savez(calib, **arrays)
        converted = run.folder / f"{'_'.join(part for part in row.key[:-1] if part).replace(':', '_')}.onnx"
        made = run_limited(_command(row, source, converted, calib, run.samples), seconds=_SECONDS, megabytes=_MEGABYTES, environment=_PATH)
        if made.code != 0:
            return replace(row, remark=made.complaint[:200], seconds=made.seconds, megabytes=made.megabytes)
        row = replace(row, **json.loads(made.out.strip().splitlines()[-1]), megabytes=made.megabytes)
    chosen = _chosen(row.part, task.samples(run.data, taken))
    answers = _answered(task, source, converted, chosen, run.threads)
    counted = count([converted], _CORE)[0].median / 1e6 if run.count else None
    return replace(_judged(task, row, answers), counted=counted)


_PATH: Mapping[str, str] = {"PYTHONPATH": ":".join([str(_ROOT), *(p for p in sys.path if p)])}


def _command(row: Row, source: Path, converted: Path, calib: Path, samples: int) -> list[str]:
    command = [sys.executable, "-m", "tools.benchmarks.real.make", str(source), str(converted), str(calib), row.method]
    command += ["--bits", row.bits, "--samples", str(samples)]
    if row.placement:
        command += ["--placement", row.placement]
    return command + (["--without", *row.without.split("+")] if row.without else [])


def _chosen(part: str, samples: Any) -> Any:
    for place, sample in enumerate(samples):
        if part == "all" or place % 2 == (part == "odd"):
            yield sample


def _answered(task: Task, source: Path, converted: Path, samples: Sequence[Sample], threads: int) -> _Answers:
    """Run both models on all samples, one by one. The int8 one runs as this machine's runtime does it by default."""
    one = open_session(source, threads=threads)
    two = one if converted == source else open_session(converted, threads=threads)
    names = [output.name for output in one.get_outputs()]
    powers, noises = np.zeros(len(names)), np.zeros(len(names))
    answers = _Answers([], [], [], [], 0.0)
    for sample in samples:
        feed = {task.input: sample.value[None]}
        wanted = dict(zip(names, one.run(names, feed), strict=True))
        got = wanted if two is one else dict(zip(names, two.run(names, feed), strict=True))
        for place, name in enumerate(names):
            powers[place] += np.square(wanted[name], dtype=np.float64).sum()
            noises[place] += np.square(wanted[name] - got[name], dtype=np.float64).sum()
        answers.wanted.append(task.reduced(wanted, sample.truth))
        answers.got.append(task.reduced(got, sample.truth))
        answers.truths.append(answers.wanted[-1] if sample.truth is None else sample.truth)
        answers.groups.append(sample.group)
    return replace(answers, sqnr_db=min(decibels(power, noise) for power, noise in zip(powers, noises, strict=True)))


def _judged(task: Task, row: Row, answers: _Answers) -> Row:
    def main(kept: Sequence[Any], places: Integers) -> float:
        return next(iter(task.figures([kept[p] for p in places], [answers.truths[p] for p in places]).values()))

    figures = task.figures(answers.got, answers.truths)
    everything = np.arange(len(answers.truths))
    row = replace(row, figures=as_text(figures), figure=next(iter(figures.values())))
    if row.method == FLOAT:
        return row
    drop = main(answers.wanted, everything) - main(answers.got, everything)
    error = error_of_difference(lambda p: main(answers.got, p), lambda p: main(answers.wanted, p), np.asarray(answers.groups))
    return replace(row, drop=drop, drop_error=error, sqnr_db=answers.sqnr_db)
