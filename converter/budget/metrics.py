"""Metrics: how good a model is on evaluation data, as one number, of which more is better.

* ``top1``: share of images whose highest score is that of their class, in percent.
* ``agreement``: share of places where the highest score (of outputs of integers: the number) is the float model's, in percent.
* ``sqnr``: 100 less the power of the error as a share of the power of the float model's output, in percent; so a drop of 1 is 20 dB.
* anything else is a command, see :mod:`converter.budget.command`.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from converter.budget.command import check_command, score_by_command
from converter.budget.labels import class_of_each, outputs_of_classes
from converter.calibration.array_files import ARRAY_SUFFIXES, array_file
from converter.calibration.calibration_files import check_calibration_path
from converter.calibration.input_specs import InputSpec
from converter.calibration.preprocess import PRESETS, Preprocess, open_images
from converter.calibration.sample_arrays import array_feeds
from converter.calibration.sample_images import image_batches
from converter.errors import CalibrationError, UsageError
from converter.load.model import Source
from converter.runtime.session import Feed, open_session, run_session
from converter.verify.quality import measure
from converter.verify.row_matching import Pair, match_rows

__all__ = ["METRICS", "Evaluation", "Metric", "check_metric", "open_metric"]

METRICS = ("top1", "agreement", "sqnr")
"""Those that are no commands."""

_BY_CLASS = "give a folder or zip of CLASS/NAME.jpg, or another --metric"


@dataclass(frozen=True)
class Evaluation:
    """What metrics need to know besides the models.

    Attributes:
        source: the float model.
        data: images or arrays to evaluate on; None for a command, which has its own.
        inputs: of the model, at the sizes of calibration.
        preprocess: of images; None for scaling to 0..1.
        class_names: of the model's outputs, in order; empty if unknown.
        scores: the axis of the classes, by name of an output that holds class scores; may be negative.
        rows: the axis of rows that the network selects, by output name.
        settings: of the runtime for quantized models.
        threads: of the runtime.
    """

    source: Source
    data: Path | None
    inputs: Sequence[InputSpec]
    preprocess: Preprocess | None
    class_names: Sequence[str]
    scores: Mapping[str, int]
    rows: Mapping[str, int]
    settings: Mapping[str, str]
    threads: int


@dataclass(frozen=True)
class Metric:
    """A metric that is ready to judge.

    Attributes:
        name: as asked for.
        unit: of scores and drops, as a word.
        data: what is judged on, a clause.
        float_score: of the float model.
        score: of a quantized model; minus infinity where it gives no number.
    """

    name: str
    unit: str
    data: str
    float_score: float
    score: Callable[[onnx.ModelProto], float]


def check_metric(metric: str, data: Path | None) -> None:
    """Refuse what a look from outside tells.

    Raises:
        UsageError: there is no such metric or program, or no data for it.
        CalibrationError: there are no data at that path.
    """
    if metric not in METRICS:
        check_command(metric)
    elif data is None:
        raise UsageError(f"there are no data to measure {metric} on", where="--max-drop", hint="give some with --eval")
    else:
        check_calibration_path(data)


def open_metric(metric: str, at: Evaluation) -> Metric:
    """Read what the metric needs, and judge the float model.

    Raises:
        UsageError: the metric does not fit the model or the data, or the command fails.
        CalibrationError: the data cannot be read.
    """
    if metric not in METRICS:
        return _command(metric, at)
    data = at.data
    if data is None:
        raise UsageError(f"there are no data to measure {metric} on", where="--max-drop", hint="give some with --eval")
    return _top1(at, data) if metric == "top1" else _against_float(metric, at, data)


def _command(metric: str, at: Evaluation) -> Metric:
    words = check_command(metric)
    path = at.source.path
    score = score_by_command(words, path if path.is_file() else at.source.model)
    if not math.isfinite(score):
        raise UsageError(f"the command printed {score} for the float model", where=f"--metric {metric}", hint="check what it measures")
    return Metric(metric, "", "by the command", score, lambda model: _number(score_by_command(words, model)))


def _number(score: float) -> float:
    return -math.inf if math.isnan(score) else score


def _top1(at: Evaluation, data: Path) -> Metric:
    if not (data.is_dir() or data.suffix.lower() == ".zip"):
        raise UsageError("top1 needs labelled images", where=f"--eval {data}", hint=_BY_CLASS)
    with open_images(data) as (files, _):
        labels = dict(zip(files, class_of_each(files), strict=True))
    unknown = next((file for file, label in labels.items() if not label), None)
    if unknown is not None:
        raise UsageError("an image lies in no class folder", where=f"--eval {data}: {unknown}", hint=_BY_CLASS)
    output = next((o.name for o in at.source.outputs if o.name in at.scores), at.source.outputs[0].name)
    classes = sorted(set(labels.values()))

    def score(model: onnx.ModelProto, settings: Mapping[str, str]) -> float:
        session = open_session(model, threads=at.threads, settings=settings)
        correct = 0
        for names, feed in image_batches(data, at.inputs, at.preprocess or PRESETS["unit"]):
            scores = run_session(session, feed, [output])[output]
            rows = scores.reshape(len(scores) if scores.ndim > 1 else 1, -1)
            places = _places(classes, rows.shape[1], at, data)
            wanted = [places[labels[name]] for name in names]
            correct += int((rows[: len(names)].argmax(1) == wanted).sum())
        return 100.0 * correct / len(labels)

    said = f"{len(labels)} images of {data.name}"
    return Metric("top1", "points", said, score(at.source.model, {}), lambda model: score(model, at.settings))


def _places(classes: Sequence[str], outputs: int, at: Evaluation, data: Path) -> Mapping[str, int]:
    found = outputs_of_classes(classes, outputs, at.class_names)
    if found is None:
        some = ", ".join(classes[:3])
        what = f"the data has {len(classes)} classes ({some}, ...) and the model {outputs} outputs; they cannot be matched"
        raise UsageError(what, where=f"--eval {data}", hint="call the class folders by the number of their output, 0 for the first")
    return found


def _against_float(metric: str, at: Evaluation, data: Path) -> Metric:
    """Both models run side by side, so that no answers have to be kept."""
    if metric == "agreement" and not at.scores and all(np.issubdtype(o.dtype, np.floating) for o in at.source.outputs):
        hint = "say which one is, with --loss NAME=scores, or use --metric sqnr"
        raise UsageError("no output holds class scores or integers", where="--metric agreement", hint=hint)
    feeds, count = _feeds(at, data)
    floats = open_session(at.source.model, threads=at.threads)
    judge = _agreement if metric == "agreement" else _exactness

    def score(model: onnx.ModelProto) -> float:
        session = open_session(model, threads=at.threads, settings=at.settings)
        return _number(judge((match_rows(run_session(floats, feed), run_session(session, feed), at.rows) for feed in feeds()), at))

    unit = "points" if metric == "agreement" else "percent of the power"
    return Metric(metric, unit, f"{count} samples of {data.name}", 100.0, score)


def _feeds(at: Evaluation, data: Path) -> tuple[Callable[[], Iterator[Feed]], int]:
    """What gives all samples, and how many images or samples there are."""
    if data.is_dir() or data.suffix.lower() == ".zip":
        with open_images(data) as (files, _):
            count = len(files)
        return lambda: (feed for _, feed in image_batches(data, at.inputs, at.preprocess or PRESETS["unit"])), count
    if data.suffix.lower() in ARRAY_SUFFIXES:
        samples, count = array_feeds(array_file(data), at.inputs, sys.maxsize, 0)
        return lambda: iter(samples), count
    hint = "give a folder or .zip of images, an .npz or an .npy"
    raise CalibrationError(f"evaluation data of type '{data.suffix}' are not known", where=f"--eval {data}", hint=hint)


def _agreement(pairs: Iterable[Mapping[str, Pair]], at: Evaluation) -> float:
    """Of the output that agrees least, on average over the samples."""
    shares: dict[str, list[float]] = {}
    for pair in pairs:
        for quality in measure([pair], at.rows, {}, at.scores):
            if quality.agreement is not None:
                shares.setdefault(quality.name, []).append(quality.agreement)
    return 100.0 * min((math.fsum(each) / len(each) for each in shares.values()), default=math.nan)


def _exactness(pairs: Iterable[Mapping[str, Pair]], _: Evaluation) -> float:
    """Of the output of numbers that is furthest from float, over all samples."""
    powers: defaultdict[str, float] = defaultdict(float)
    noises: defaultdict[str, float] = defaultdict(float)
    for pair in pairs:
        for name, each in pair.items():
            if np.issubdtype(each.wanted.dtype, np.floating):
                there = np.isfinite(each.wanted)
                wanted, got = each.wanted[there].astype(np.float64), each.got[there].astype(np.float64)
                powers[name] += float(np.square(wanted).sum())
                noises[name] += float(np.square(wanted - got).sum())
    shares = [noises[name] / power if power else math.inf * bool(noises[name]) for name, power in powers.items()]
    return 100.0 - 100.0 * max(shares, default=math.nan)
