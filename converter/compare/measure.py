"""Measure both sides of a comparison against one float model, on the same samples."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from converter.compare.records import Comparison, OutputFigures, Side
from converter.diagnosis.model_file import diagnose_file, is_quantized
from converter.errors import ModelError, UsageError
from converter.load.files import check_input
from converter.load.metadata import IO
from converter.load.model import load
from converter.options import Options
from converter.partition.cost_model import in_second_unit, predict
from converter.pipeline import Calibrated, adopt_plan, calibrate, diagnose_plan
from converter.plan.io_forms import IO_FORMS, IoForm
from converter.planning.replay import read_plan
from converter.progress import SILENT, Progress
from converter.runtime.session import open_session, run_session
from converter.targets import Target
from converter.verify.coverage_by_profile import coverage_of
from converter.verify.file_plan import file_costs
from converter.verify.parity import selected_rows
from converter.verify.quality import measure
from converter.verify.row_matching import match_rows

__all__ = ["PLAN_SUFFIX", "compare"]

PLAN_SUFFIX = ".json"
"""Of a plan; anything else is a model."""


def compare(first: Path, second: Path, options: Options, *, floats: Path | None = None, progress: Progress = SILENT) -> Comparison:
    """Compare two plans, two int8 models, one of each, or one of them with the float model.

    Args:
        first: a model, or a plan if it ends in ``.json``.
        second: the same. Where it is the float model, the two change places: tensors are shown of what is quantized.
        options: samples, sizes of open inputs, target, seed and threads; a plan brings its bits and its target.
        floats: the float model that both were made of; not needed where one of the two is it.

    Raises:
        ConverterError: a file cannot be read or does not fit the float model, or there is no float model.
    """
    models = {path: _read(path) for path in (first, second, *([] if floats is None else [floats])) if path.suffix != PLAN_SUFFIX}
    plain = [path for path, model in models.items() if not is_quantized(model)]
    base = floats if floats is not None else (plain[0] if plain else None)
    if base is None:
        hint = "name the one they were made of: --model FLOAT.onnx"
        raise UsageError("neither of the two is the float model", where=f"{first}, {second}", hint=hint)
    if base not in plain:
        raise UsageError("the model to compare with is quantized", where=f"--model {base}", hint="give the float one that it was made of")
    if {first, second} <= set(plain):
        hint = "give what was made of it: an int8 model or a plan"
        raise UsageError("both are float models", where=f"{first}, {second}", hint=hint)
    if second in plain:
        first, second = second, first
    progress.stage("load")
    source = load(base)
    options = replace(options, io=_common_io([path for path in (first, second) if path not in plain], models))

    def known(changed: Options) -> Calibrated:
        key = (str(changed.bits), changed.target)
        if key not in made:
            made[key] = calibrate(source, changed, progress)
        return made[key]

    made: dict[tuple[str, str], Calibrated] = {}
    sides = [_side(path, models.get(path), path in plain, options, known, progress) for path in (first, second)]
    at = next(iter(made.values())) if made else known(options)
    notes = tuple(dict.fromkeys(at.remarks))
    used = len(at.samples.held_aside)
    unit, *others = (each.unit for each in _units(at.target))
    return Comparison(sides[0], sides[1], base.name, at.samples.description, used, at.target.name, unit, notes, *others)


def _common_io(paths: Sequence[Path], models: Mapping[Path, onnx.ModelProto]) -> IoForm:
    """What both sides take and give; float models are made to fit.

    Raises:
        UsageError: they differ.
    """
    found: dict[IoForm, Path] = {}
    for path in paths:
        metadata = {entry.key: entry.value for entry in models[path].metadata_props} if path in models else {IO: read_plan(path).io}
        found[next((form for form in IO_FORMS if form == metadata.get(IO)), "float")] = path
    if len(found) > 1:
        what = "one takes float numbers and the other pixels, so that they cannot run on the same samples"
        raise UsageError(what, where=f"{found['float']}, {found['uint8']}", hint="convert both with the same --io")
    return next(iter(found))


def _read(path: Path) -> onnx.ModelProto:
    check_input(path)
    try:
        return onnx.load(path)
    except Exception as error:  # what protobuf raises depends on its version
        raise ModelError("the file is not ONNX, or is truncated", where=str(path), hint="check the path; a plan ends in .json") from error


def _side(
    path: Path, model: onnx.ModelProto | None, plain: bool, options: Options, known: Callable[[Options], Calibrated], progress: Progress
) -> Side:
    progress.stage(path.name)
    if model is None:
        return _plan_side(path, options, known, progress)
    at = known(options)
    if plain:
        costs = [predict(at.canonical.model, None, None, at.shapes, unit).total for unit in _units(at.target)]
        exact = tuple(OutputFigures(o.name, 200.0) for o in at.source.outputs)
        return Side(path.name, "float", path.stat().st_size, costs[0], 0.0, exact, None, *costs[1:])
    feed = at.samples.held_aside[0]
    diagnosis = diagnose_file(model, at.canonical.model, at.seen.tensors, at.samples.held_aside, at.target, threads=at.options.threads)
    coverage = coverage_of(model, feed, at.target.session_settings.get(platform.machine(), {}))
    cost, *others = file_costs(model, feed, at.target, {product.name for product in coverage.in_float}).values() or (None,)
    share = coverage.percent / 100.0
    return Side(path.name, "model", path.stat().st_size, cost, share, _outputs(model, at, path), diagnosis, *others)


def _units(target: Target) -> list[Target]:
    return [target] if target.second is None else [target, target.second]


def _plan_side(path: Path, options: Options, known: Callable[[Options], Calibrated], progress: Progress) -> Side:
    plan = read_plan(path)
    at = known(replace(options, bits=plan.bits, target=options.target if options.target.endswith(".toml") else plan.target))
    planned = adopt_plan(at, plan, path)
    diagnosis = diagnose_plan(at, planned, progress)
    cost = predict(planned.model, planned.plan, planned.offers, at.shapes, at.target).total
    second = in_second_unit(at.canonical.model, planned.model, planned.plan, at.shapes, at.target)
    accumulated = {t.name: t.accumulated_db for t in diagnosis.tensors}
    outputs = tuple(OutputFigures(o.name, accumulated.get(o.name)) for o in at.source.outputs)
    macs = {name: entry.macs for name, entry in planned.offers.items()}
    in_integer = sum(macs[name] for name in macs if planned.plan.ops[name].runs == "integer")
    share = in_integer / max(1, sum(macs.values()))
    return Side(path.name, "plan", None, cost, share, outputs, diagnosis, None if second is None else second.predicted)


def _outputs(model: onnx.ModelProto, at: Calibrated, path: Path) -> tuple[OutputFigures, ...]:
    """Outputs as the runtime gives them, against those of the float model."""
    names = [o.name for o in at.source.outputs]
    if not set(names) <= {o.name for o in model.graph.output}:
        raise UsageError("it has other outputs than the float model", where=str(path), hint="name the float model it was made of: --model")
    settings = at.target.session_settings.get(platform.machine(), {})
    sessions = [open_session(m, threads=at.options.threads, settings=settings) for m in (at.source.model, model)]
    rows = selected_rows(at.canonical.model, at.samples.held_aside[0])
    pairs = []
    for feed in at.samples.held_aside:
        exact, got = (run_session(session, feed, names) for session in sessions)
        pairs.append(match_rows(exact, got, rows))
    scores = {name: loss.axis for name, loss in at.losses.items() if loss.counts_scores}
    return tuple(OutputFigures(q.name, q.sqnr_db, q.agreement) for q in measure(pairs, rows, {}, scores))
