"""Measure one row: make the model in a process of its own, run it, and judge it and float on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.errors import ConverterError
from runtime_tests.emulation.count import count
from tools.benchmarks.real.answers import answerer, chosen, float_answers
from tools.benchmarks.real.converted import Workshop, converted
from tools.benchmarks.real.networks.scores import decibels, error_of_difference
from tools.benchmarks.real.networks.task import Task, float_model
from tools.benchmarks.real.rows import FLOAT, Row, as_text
from tools.benchmarks.real.tasks import TASKS

__all__ = ["Run", "measure_row"]

Integers = npt.NDArray[np.integer]

_CORE = "cortex-a76"


@dataclass(frozen=True)
class Run:
    """What all rows share.

    Attributes:
        data: folder of networks and images.
        shop: where and how models are made.
        threads: of the runtime, when images are judged.
        count: count instructions too, where the emulated machine is set up.
    """

    data: Path
    shop: Workshop
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
    run.shop.folder.mkdir(parents=True, exist_ok=True)  # it may not be there on another machine
    try:
        return _measured(run, row)
    except ConverterError as error:
        return replace(row, remark=f"{error.what} ({error.where})"[:200] if error.where else error.what[:200])


def _measured(run: Run, row: Row) -> Row:
    task = TASKS[row.network]
    path = float_model(task, run.data, run.shop.folder)
    array, taken = task.calibration(run.data, int(row.choice))
    if row.method != FLOAT:
        path, row = converted(run.shop, row, path, task.input, array)
        if row.remark:
            return row
    del array
    answers = _answered(task, run, row, path, taken)
    counted = count([path], _CORE)[0].median / 1e6 if run.count else None
    return replace(_judged(task, row, answers), counted=counted)


def _answered(task: Task, run: Run, row: Row, path: Path, taken: frozenset[str]) -> _Answers:
    """Run the model on all samples, one by one, beside what float has said to them."""
    floats = float_answers(task, run.data, run.shop.folder, run.threads)
    answer = None if row.method == FLOAT else answerer(path, task.input, run.threads)
    powers, noises = np.zeros(len(floats.outputs)), np.zeros(len(floats.outputs))
    answers = _Answers([], [], [], [], 0.0)
    for sample in chosen(row.part, task.samples(run.data, taken)):
        wanted = floats.of(sample.name)
        got = wanted if answer is None else answer(sample.value)
        for place, name in enumerate(floats.outputs):
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
