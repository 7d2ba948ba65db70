"""The whole story: load -> calibrate (samples, canonicalise, observe) -> plan -> emit -> verify -> report."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime

from converter.budget.metrics import check_metric
from converter.budget.records import Budget, budget_missed
from converter.diagnosis.records import Diagnosis
from converter.emit.model_files import data_path, model_files
from converter.errors import ModelError, UsageError
from converter.graph.weight_files import read_back, release_pages
from converter.load.files import check_input, check_outputs, write_files
from converter.load.model import Source, load
from converter.options import Options
from converter.plan.records import Plan
from converter.plan.serialization import plan_to_json
from converter.planning.make import Planned
from converter.progress import SILENT, Progress, timed
from converter.report import MobileFile, Report, report_json
from converter.report_page.page import report_page
from converter.runtime.latency import latency_ratio
from converter.stages.calibrate import Calibrated, calibrate
from converter.stages.emit import emit_model, emitted, interface_sentence
from converter.stages.plan import adopt_plan, make_plan, plan_from_file, plan_within_budget
from converter.stages.report import Result, report_of
from converter.stages.verify import check_bound, diagnose_plan, enforce_bound, verify_model
from converter.targets import FILE_SUFFIX
from converter.verify.ort_format import ort_format

__all__ = [
    "Calibrated",
    "adopt_plan",
    "calibrate",
    "convert",
    "diagnose_plan",
    "emit_model",
    "make_plan",
    "plan_within_budget",
    "verify_model",
]


def convert(
    source: str | Path | onnx.ModelProto,
    output: str | Path | None = None,
    options: Options | None = None,
    *,
    dry_run: bool = False,
    progress: Progress = SILENT,
    plan_out: str | Path | None = None,
    json_out: str | Path | None = None,
    report_out: str | Path | None = None,
    ort_out: str | Path | None = None,
) -> Report:
    """Convert a float ONNX model to an int8 QDQ model.

    Args:
        source: the float model, or its file. A model in memory is left as it is.
        output: where the result goes; replaced atomically, left untouched on any failure. None writes no model: it is in the report.
        options: how; by default those of ``Options()``.
        dry_run: stop when there is a plan: nothing is emitted or verified, and no model is written.
        progress: who is watching.
        plan_out: where the plan goes, as JSON.
        json_out: where the report goes, as JSON.
        report_out: where the report goes, as a page for a browser; every tensor is measured for it, and the JSON then holds this too.
        ort_out: where the model goes in ONNX Runtime's mobile format, too, which ends in ``.ort``, see :mod:`converter.verify.ort_format`.

    Returns:
        what was done and found, with the model. With a budget that nothing holds and ``keep_best``, it says so in ``budget.met``.

    Raises:
        ConverterError: see :mod:`converter.errors`. None of the files is written then.
    """
    options = Options() if options is None else options
    _refuse_budget_without_evaluation(options, dry_run)
    source = source if isinstance(source, onnx.ModelProto) else Path(source)
    target_file = options.target if options.target.endswith(FILE_SUFFIX) else None
    read = _files(
        {"IN": source, "--calib": options.calib, "--eval": options.evaluation, "--plan-in": options.plan_in, "--target": target_file}
    )
    written = _files({"OUT": output, "--ort": ort_out, "--plan-out": plan_out, "--json": json_out, "--report": report_out})
    if "IN" in read:
        check_input(read["IN"])
    check_outputs(written, read)
    given = None if options.plan_in is None else plan_from_file(options.plan_in, options)
    progress, seconds = timed(progress)
    progress.stage("load")
    loaded = load(source)
    check_bound(loaded, options)
    both = {"the data of OUT": data_path(written["OUT"])} if loaded.weights is not None and "OUT" in written else {}
    check_outputs(written | both, {f"the external data {path.name}": path for path in loaded.external})
    try:
        report = _converted(loaded, written, options, given, dry_run, progress)
    except ModelError as error:
        if error.hint:
            raise
        hint = "see whether ONNX Runtime runs the float model, and export it again"
        raise ModelError(error.what, where=error.where or str(loaded.path), hint=hint) from error
    return _written(replace(report, seconds=seconds()), written)


def _refuse_budget_without_evaluation(options: Options, dry_run: bool) -> None:
    """Raises a UsageError before anything is read."""
    if options.max_drop is None:
        return
    if dry_run:
        hint = "leave one of the two out"
        raise UsageError("a budget needs models that are emitted and evaluated", where="--max-drop with --dry-run", hint=hint)
    check_metric(options.metric, options.evaluation)


def _written(report: Report, written: Mapping[str, Path]) -> Report:
    """Write all files at once, or none; the report then holds the model as a whole."""
    contents = {"--plan-out": plan_to_json(report.plan).encode(), "--json": report_json(report).encode()}
    if "--report" in written:
        contents["--report"] = report_page(report).encode()
    if report.mobile is not None:
        contents["--ort"] = report.mobile.content
    files: dict[Path, bytes | Iterable[bytes]] = {written[role]: content for role, content in contents.items() if role in written}
    if report.model is None:
        write_files(files)
        return report
    if "OUT" in written:
        files |= model_files(report.model, written["OUT"])
    write_files(files)
    return replace(report, model=read_back(report.model))


def _files(named: Mapping[str, object]) -> dict[str, Path]:
    """Those that are paths.

    Raises:
        UsageError: one cannot be a path.
    """
    found = {role: Path(path) for role, path in named.items() if isinstance(path, (str, Path))}
    for role, path in found.items():
        if "\0" in str(path):
            raise UsageError("the path holds a character that no path can", where=role, hint="check the path")
    return found


def _converted(
    source: Source, written: Mapping[str, Path], options: Options, given: Plan | None, dry_run: bool, progress: Progress
) -> Report:
    diagnosed = "--report" in written
    calibrated = calibrate(source, options, progress)
    planned, budget = _planned(calibrated, given, progress)
    if dry_run:
        return report_of(calibrated, planned, diagnosis=_diagnosis(calibrated, planned, progress) if diagnosed else None)
    progress.stage("emit")
    model = emitted(calibrated, planned)
    interface = interface_sentence(source, calibrated, planned, model)
    if interface:
        progress.note(interface)
    for read in (calibrated.canonical.model, planned.model):
        release_pages(read)
    progress.stage("verify")
    verdict = verify_model(calibrated, planned, model, progress)
    enforce_bound(verdict, options)
    mobile = None
    if "--ort" in written:
        progress.stage("ort")
        content = ort_format(model, calibrated.target, calibrated.samples.held_aside[0], verdict.integer_coverage.kernels)
        mobile = MobileFile(written["--ort"].name, content, onnxruntime.__version__)
    latency = None
    if options.latency or platform.machine() in calibrated.target.architectures:
        progress.stage("measure")
        latency = latency_ratio(calibrated.source.model, model, calibrated.samples.held_aside[0])
    # after all that goes into the file, which a report shall not change
    diagnosis = _diagnosis(calibrated, planned, progress) if diagnosed else None
    result = Result(written["OUT"].name if "OUT" in written else "", model, verdict, latency, mobile, interface)
    return report_of(calibrated, planned, result, diagnosis, budget)


def _planned(at: Calibrated, given: Plan | None, progress: Progress) -> tuple[Planned, Budget | None]:
    if at.options.max_drop is not None:
        planned, budget = plan_within_budget(at, progress)
        if not budget.met and not at.options.keep_best:
            raise budget_missed(budget, "nothing was written", "allow a larger drop, or see how far it gets with --keep-best")
        return planned, budget
    progress.stage("plan")
    return make_plan(at, progress) if given is None else adopt_plan(at, given, at.options.plan_in), None


def _diagnosis(at: Calibrated, planned: Planned, progress: Progress) -> Diagnosis:
    progress.stage("diagnose")
    return diagnose_plan(at, planned, progress)
