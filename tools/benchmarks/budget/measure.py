"""Measure one row: make the model, judge it and float on the images that did not choose it, and tell what it costs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from converter.errors import ConverterError
from converter.load.model import load
from converter.options import Options
from converter.partition.cost_model import predict
from converter.pipeline import calibrate
from converter.runtime.session import Feed
from converter.targets import find_target
from converter.verify.coverage_by_profile import coverage_of
from runtime_tests.emulation.count import count
from tools.benchmarks.budget.judge import Judge, Outputs, exactness, judge_of, metric_of
from tools.benchmarks.budget.make import Workshop, made, path_of
from tools.benchmarks.budget.rows import OURS, Row
from tools.benchmarks.budget.subjects import Subject, subject_of
from tools.benchmarks.real.file_costs import file_cost
from tools.benchmarks.real.networks.scores import error_of_difference
from tools.benchmarks.real.session_settings import settings_for

__all__ = ["measure_row"]

_CORE = "cortex-a76"
_LONGEST = 200


def measure_row(shop: Workshop, row: Row, *, counts: bool, threads: int) -> Row:
    """The row with what was measured; what goes wrong is its remark.

    Args:
        shop: where and how models are made.
        row: what is wanted.
        counts: count instructions too, on the emulated machine.
        threads: of the runtime, when images are judged.
    """
    shop.folder.mkdir(parents=True, exist_ok=True)
    try:
        subject = subject_of(row.network, shop.data, shop.folder)
        row = made(shop, row, subject)
        row = _judged(row, subject, shop, threads)
        row = _priced(row, subject, shop)
        return _counted(row, subject, shop) if counts else row
    except ConverterError as error:
        return replace(row, remark=error.what[:_LONGEST].replace("\n", " "))


def _judged(row: Row, subject: Subject, shop: Workshop, threads: int) -> Row:
    model, source = onnx.load(path_of(shop, row)), onnx.load(subject.path)
    even = judge_of(subject.task, shop.data, source, "even", threads)
    places = range(len(even.samples))
    wanted, got = (metric_of(even, row.metric, outputs, places) for outputs in (even.floats, even.answers(model, places)))
    del even
    odd = judge_of(subject.task, shop.data, source, "odd", threads)
    everything = np.arange(len(odd.samples))
    outputs = odd.answers(model, range(len(everything)))
    figure = odd.score(outputs, range(len(everything)))
    return replace(
        row,
        chosen_drop=wanted - got,
        figure=figure,
        drop=odd.score(odd.floats, range(len(everything))) - figure,
        drop_error=_error(odd, outputs),
        noise=100.0 - exactness(odd.floats, outputs),
    )


def _error(judge: Judge, outputs: Sequence[Outputs]) -> float:
    """Standard error of the drop, by leaving out groups of images."""

    def score(some: Sequence[Outputs]) -> Callable[[npt.NDArray[np.integer]], float]:
        return lambda places: judge.score([some[place] for place in places], [int(place) for place in places])

    groups = np.asarray([sample.group for sample in judge.samples])
    return error_of_difference(score(outputs), score(judge.floats), groups)


def _priced(row: Row, subject: Subject, shop: Workshop) -> Row:
    """Costs by the target's prices: our own as planned, another tool's of the kernels that the runtime makes of its file."""
    array, _ = subject.task.calibration(shop.data, 0)
    feeds: list[Feed] = [{subject.task.input: array[place : place + 1]} for place in range(2)]
    seen = calibrate(
        load(subject.path), Options(calib=[{name: value[0] for name, value in f.items()} for f in feeds], samples=1, threads=1)
    )
    row = replace(row, predicted_float=predict(seen.canonical.model, None, {}, seen.shapes, seen.target).total / 1e6)
    if row.tool == OURS:
        return row
    model = onnx.load(path_of(shop, row))
    settings = settings_for(model)
    price = file_cost(model, feeds[0], settings, find_target(Options.target)) / 1e6
    return replace(row, predicted=price, coverage=coverage_of(model, feeds[0], settings).percent)


def _counted(row: Row, subject: Subject, shop: Workshop) -> Row:
    """Count an inference of the first sample, as a network may leave sizes open."""
    array, _ = subject.task.calibration(shop.data, 0)
    sample: dict[str, Any] = {subject.task.input: array[:1]}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "sample.npz"
        np.savez(inputs, **sample)
        floats, int8 = count([subject.path, path_of(shop, row)], _CORE, inputs=inputs)
    return replace(row, counted=int8.median / 1e6, counted_float=floats.median / 1e6)
