"""The whole story: load -> calibrate (samples, canonicalise, observe) -> plan -> emit -> verify -> report."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from converter import __version__
from converter.budget.choose import choose_within_budget
from converter.budget.metrics import METRICS, Evaluation, check_metric, open_metric
from converter.budget.records import Budget, budget_missed
from converter.calibration.array_files import ArrayStore
from converter.calibration.given_samples import GIVEN, given_arrays
from converter.calibration.input_shapes import calibration_shapes
from converter.calibration.input_specs import InputSpec
from converter.calibration.observer import CalibrationStatistics, collect_statistics
from converter.calibration.preprocess import Preprocess, mean_and_std, stated_preprocess
from converter.calibration.samples import SampleSet, load_samples
from converter.canonicalise import PROOF_SAMPLES, Canonical, canonicalise, undone
from converter.canonicalise.outputs import restore_outputs
from converter.diagnosis.diagnose import diagnose
from converter.diagnosis.records import Diagnosis
from converter.emit.builder import emit
from converter.emit.file_bytes import bytes_of
from converter.emit.interface import describe_interface, output_codes
from converter.emit.model_files import data_path, model_files
from converter.emit.opset import write_in_opset
from converter.emit.proto import as_proto
from converter.emit.requirement import opset_of, required_runtime
from converter.errors import BoundMissedError, CalibrationError, ModelError, UsageError
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.graph.exclusions import excluded_nodes
from converter.graph.operator_sets import CANONICAL_OPSET
from converter.graph.source_nodes import name_after_source
from converter.graph.weight_files import model_bytes, offload_constants, read_back, release_pages
from converter.load.files import check_input, check_outputs, write_files
from converter.load.metadata import class_names
from converter.load.model import Source, load
from converter.load.pixel_inputs import with_pixel_inputs
from converter.options import Options
from converter.partition.bit_widths import CONTAINER_BITS
from converter.partition.cost_model import in_second_unit, predict
from converter.partition.requantize_copies import add_requantize_copies
from converter.plan.records import Plan
from converter.plan.serialization import plan_to_json
from converter.planning import make as planning
from converter.planning.make import Planned, adopted, find_losses
from converter.planning.replay import read_plan
from converter.planning.stored_weights import bytes_to_save
from converter.progress import SILENT, Progress, timed
from converter.provenance import provenance
from converter.report import MobileFile, Report, quality_warnings, report_json
from converter.report_page.page import report_page
from converter.runtime.latency import LatencyRatio, latency_ratio
from converter.sensitivity.bridge_blocks import find_structure
from converter.sensitivity.context import ReconstructionBlock
from converter.sensitivity.output_loss import OutputLoss
from converter.system.peak_memory import peak_memory
from converter.targets import FILE_SUFFIX, Target, find_target
from converter.targets.costs import Shapes
from converter.verify.ort_format import ort_format
from converter.verify.parity import selected_rows
from converter.verify.verdict import Verdict, verify

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
    if options.max_drop is not None:
        if dry_run:
            hint = "leave one of the two out"
            raise UsageError("a budget needs models that are emitted and evaluated", where="--max-drop with --dry-run", hint=hint)
        check_metric(options.metric, options.evaluation)
    source = source if isinstance(source, onnx.ModelProto) else Path(source)
    target_file = options.target if options.target.endswith(FILE_SUFFIX) else None
    read = _files(
        {"IN": source, "--calib": options.calib, "--eval": options.evaluation, "--plan-in": options.plan_in, "--target": target_file}
    )
    written = _files({"OUT": output, "--ort": ort_out, "--plan-out": plan_out, "--json": json_out, "--report": report_out})
    if "IN" in read:
        check_input(read["IN"])
    check_outputs(written, read)
    given = None if options.plan_in is None else _read_plan(options.plan_in, options)
    progress, seconds = timed(progress)
    progress.stage("load")
    loaded = load(source)
    _check_bound(loaded, options)
    both = {"the data of OUT": data_path(written["OUT"])} if loaded.weights is not None and "OUT" in written else {}
    check_outputs(written | both, {f"the external data {path.name}": path for path in loaded.external})
    try:
        report = _converted(loaded, written, options, given, dry_run, progress)
    except ModelError as error:
        if error.hint:
            raise
        hint = "see whether ONNX Runtime runs the float model, and export it again"
        raise ModelError(error.what, where=error.where or str(loaded.path), hint=hint) from error
    report = replace(report, seconds=seconds())
    contents = {"--plan-out": plan_to_json(report.plan).encode(), "--json": report_json(report).encode()}
    if "--report" in written:
        contents["--report"] = report_page(report).encode()
    if report.mobile is not None:
        contents["--ort"] = report.mobile.content
    files: dict[Path, bytes | Iterable[bytes]] = {written[role]: content for role, content in contents.items() if role in written}
    if report.model is not None:
        if "OUT" in written:
            files |= model_files(report.model, written["OUT"])
        write_files(files)
        return replace(report, model=read_back(report.model))
    write_files(files)
    return report


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
        return _report(calibrated, planned, diagnosis=_diagnosis(calibrated, planned, progress) if diagnosed else None)
    progress.stage("emit")
    model = _emitted(calibrated, planned)
    interface = _interface(source, calibrated, planned, model)
    if interface:
        progress.note(interface)
    for read in (calibrated.canonical.model, planned.model):
        release_pages(read)
    progress.stage("verify")
    verdict = verify_model(calibrated, planned, model, progress)
    _enforce(verdict, options)
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
    result = _Result(written["OUT"].name if "OUT" in written else "", model, verdict, latency, mobile, interface)
    return _report(calibrated, planned, result, diagnosis, budget)


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


@dataclass(frozen=True)
class _Result:
    output: str
    model: onnx.ModelProto
    verdict: Verdict
    latency: LatencyRatio | None
    mobile: MobileFile | None
    interface: str


@dataclass(frozen=True)
class Calibrated:
    """A model of which all is known that a plan needs.

    Attributes:
        source: the float model.
        options: how it is converted.
        target: kernels and costs.
        samples: to calibrate and to compare on.
        preprocess: of images; None for scaling to 0..1.
        remarks: sentences on what was assumed.
        canonical: the model in canonical form; its operators are named after the source's.
        excluded: names of operators that stay float.
        seen: ranges, shapes and values of its tensors on the samples.
        inputs: of the model, at the sizes of the samples.
        losses: by which each float output counts.
    """

    source: Source
    options: Options
    target: Target
    samples: SampleSet
    preprocess: Preprocess | None
    remarks: tuple[str, ...]
    canonical: Canonical
    excluded: frozenset[str]
    seen: CalibrationStatistics
    inputs: tuple[InputSpec, ...]
    losses: Mapping[str, OutputLoss]

    @property
    def shapes(self) -> Shapes:
        """Of all tensors, as calibrated."""
        return {name: stats.shape for name, stats in self.seen.tensors.items()}

    def look(self, model: ir.Model) -> CalibrationStatistics:
        """Observe another model, such as the canonical one transformed, on the same samples."""
        return collect_statistics(model, self.samples.calibration, seed=self.options.seed, threads=self.options.threads)


def calibrate(source: Source, options: Options, progress: Progress = SILENT) -> Calibrated:
    """Collect samples, bring the model into canonical form, and observe it on them.

    Raises:
        ConverterError: the samples cannot be used, the model does not run, or an option does not fit the model.
    """
    target = find_target(options.target)
    if options.io != "float":
        source = _taking_pixels(source, options)
    samples, inputs, preprocess, remarks = _samples(source, options, progress)
    progress.stage("canonicalise")
    canonical = canonicalise(source.model, samples.calibration[:PROOF_SAMPLES], target)
    for remark in undone(canonical):
        remarks.append(remark)
        progress.note(remark)
    name_after_source(source.model, canonical.model)
    excluded = excluded_nodes(options.exclude, source.model, canonical.model)
    if options.widths.activations < CONTAINER_BITS:
        add_requantize_copies(canonical.model, excluded)
    progress.stage("observe")
    release_pages(canonical.model)
    seen = collect_statistics(canonical.model, samples.calibration, seed=options.seed, threads=options.threads, progress=progress.step)
    losses = find_losses(canonical.model, samples.calibration, options)
    return Calibrated(source, options, target, samples, preprocess, tuple(remarks), canonical, excluded, seen, tuple(inputs), losses)


def _taking_pixels(source: Source, options: Options) -> Source:
    """The model with pixels for inputs, which it normalises as the options or its metadata say.

    Raises:
        UsageError: nobody says how, or no input takes pictures.
    """
    preprocess = options.preprocess or stated_preprocess(source.metadata)
    if preprocess is None:
        hint = "say it: --preprocess unit (0..1), symmetric (-1..1), imagenet or 'mean=..;std=..'"
        raise UsageError("how pixels become the numbers that the model takes is not known", where=f"--io {options.io}", hint=hint)
    return with_pixel_inputs(source, lambda channels: mean_and_std(preprocess, channels))


def make_plan(at: Calibrated, progress: Progress = SILENT) -> Planned:
    """Let the method of the options decide what runs in integer, and how numbers become codes."""
    model, feeds, blocks = at.canonical.model, at.samples.calibration, _reconstruction_blocks(at)
    return planning.make_plan(
        model, at.seen, at.look, feeds, blocks, at.target, at.options, at.excluded, losses=at.losses, progress=progress
    )


def plan_within_budget(at: Calibrated, progress: Progress = SILENT) -> tuple[Planned, Budget]:
    """Let the method decide how numbers become codes, and measured accuracy what runs in integer; the options hold the budget.

    Returns:
        the cheapest plan found within the budget, or if there is none the one that drops least, and the record of the search.

    Raises:
        UsageError, CalibrationError: the metric does not fit the model, or the evaluation data cannot be read.
    """
    options = at.options
    if options.max_drop is None:
        raise UsageError("the options hold no budget", where="--max-drop", hint="give one")
    progress.stage("evaluate")
    if options.metric not in METRICS and options.evaluation is not None:
        progress.note("--eval is not read: the command of --metric has data of its own")
    metric = open_metric(options.metric, _evaluation(at))
    progress.stage("plan")
    model, feeds, blocks = at.canonical.model, at.samples.calibration, _reconstruction_blocks(at)
    found = planning.search(model, at.seen, at.look, feeds, blocks, at.target, options, at.excluded, losses=at.losses, progress=progress)
    progress.stage("budget")
    return choose_within_budget(found, lambda planned: _emitted(at, planned), metric, options.max_drop, options.max_evaluations, progress)


def _reconstruction_blocks(at: Calibrated) -> tuple[ReconstructionBlock, ...]:
    return tuple(ReconstructionBlock(block.nodes, block.outputs) for block in find_structure(at.canonical.model, at.shapes).blocks)


def _evaluation(at: Calibrated) -> Evaluation:
    return Evaluation(
        at.source,
        at.options.evaluation,
        at.inputs,
        at.preprocess,
        class_names(at.source.metadata),
        {name: loss.axis for name, loss in at.losses.items() if loss.counts_scores},
        selected_rows(at.canonical.model, at.samples.held_aside[0]),
        at.target.session_settings.get(platform.machine(), {}),
        at.options.threads,
    )


def adopt_plan(at: Calibrated, plan: Plan, where: Path | None = None) -> Planned:
    """Use a plan that was made before, and perhaps edited.

    Args:
        at: the model that the plan is for.
        plan: which the result holds as it will be carried out.
        where: its file, if it has one, for messages.

    Raises:
        UsageError: it does not fit the model or the options.
    """
    where = Path("the given plan") if where is None else where
    _check_widths(plan, at.options, where)
    return adopted(plan, at.canonical.model, at.seen, at.look, at.target, at.options, at.excluded, where)


def emit_model(at: Calibrated, planned: Planned) -> onnx.ModelProto:
    """Write the planned model as QuantizeLinear and DequantizeLinear nodes, with the source's inputs, outputs and metadata."""
    return read_back(_emitted(at, planned))


def _emitted(at: Calibrated, planned: Planned) -> onnx.ModelProto:
    """The same; what a large model has left of its float weights is still in files."""
    emitted = emit(planned.model, planned.plan, {})
    restore_outputs(emitted, at.source.model, at.canonical.constants)
    write_in_opset(emitted, at.options.opset)
    offload_constants(emitted)
    model = as_proto(emitted)
    metadata = provenance(
        at.source,
        planned.plan,
        at.samples,
        at.preprocess,
        at.options,
        required_runtime(model),
        output_codes(model, planned.model, planned.plan),
    )
    onnx.helper.set_model_props(model, metadata)  # after to_proto, which sorts them: the input file's order shall stay
    return model


def _interface(given: Source, at: Calibrated, planned: Planned, model: onnx.ModelProto) -> str:
    """A sentence on pixels and codes; empty where inputs and outputs are as in the file that was given."""
    if planned.plan.io == "float":
        return ""
    pixels = [new.name for old, new in zip(given.inputs, at.source.inputs, strict=True) if old.dtype != new.dtype]
    return describe_interface(model, output_codes(model, planned.model, planned.plan), pixels)


def verify_model(at: Calibrated, planned: Planned, model: onnx.ModelProto, progress: Progress = SILENT) -> Verdict:
    """Run the emitted model, compare it with the float model and with its plan, and count what runs in integer.

    Raises:
        VerificationError: it is not what was planned.
    """
    return verify(
        at.source,
        planned.model,
        ir.from_proto(model),
        planned.plan,
        planned.offers,
        at.samples.held_aside,
        at.target,
        groups=_parts(at.losses, at.source),
        scores={name: loss.axis for name, loss in at.losses.items() if loss.counts_scores},
        threads=at.options.threads,
        progress=progress,
    )


def diagnose_plan(at: Calibrated, planned: Planned, progress: Progress = SILENT) -> Diagnosis:
    """Measure every tensor of a planned model on the held-aside samples."""
    seen = at.seen if planned.model is at.canonical.model else at.look(planned.model)
    return diagnose(
        planned.model,
        planned.plan,
        planned.offers,
        seen.tensors,
        at.samples.held_aside,
        at.target,
        tensor_sensitivity=planned.tensor_sensitivity,
        operator_sensitivity=planned.operator_sensitivity,
        progress=progress.step,
    )


def _samples(source: Source, options: Options, progress: Progress) -> tuple[SampleSet, list[InputSpec], Preprocess | None, list[str]]:
    remarks = list(source.notes)
    if options.require_data and options.calib is None:
        raise CalibrationError("there are no calibration data", where="--require-data", hint="give some with --calib")
    calib, name = options.calib, GIVEN
    data: Path | ArrayStore | None = None
    if isinstance(calib, (str, Path)):
        data, name = Path(calib), f"--calib {calib}"
    elif calib is not None:
        data = given_arrays(calib, source.inputs, options.samples)
    specs, guess = calibration_shapes(source, options.input_shapes, data, options.threads)
    if guess:
        remarks.append(guess)
    preprocess = options.preprocess
    if preprocess is None:
        preprocess = stated_preprocess(source.metadata)
    samples = load_samples(data, specs, count=options.samples, preprocess=preprocess, seed=options.seed)
    if options.require_data and samples.doubts:
        hint = "give data as the model will meet them, or leave --require-data out"
        raise CalibrationError(samples.doubts[0], where=f"--require-data with {name}", hint=hint)
    if samples.kind == "synthetic":
        remarks.append("calibrated on built-in synthetic samples; for better accuracy give real ones with --calib")
    if samples.assumed:
        remarks.append(samples.assumed)
    if samples.skipped:
        remarks.append(f"{samples.skipped} unreadable images were skipped")
    if samples.shared:
        remarks.append("there was one sample only: it was used to calibrate and to compare")
    for remark in (*remarks, *samples.doubts):
        progress.note(remark)
    return samples, specs, preprocess, remarks


def _read_plan(path: Path, options: Options) -> Plan:
    plan = read_plan(path)
    _check_widths(plan, options, path)
    return plan


def _check_widths(plan: Plan, options: Options, where: Path) -> None:
    if plan.bits != options.widths:
        raise UsageError(
            f"the plan is for {plan.bits}, not for {options.bits}",
            where=f"--plan-in {where}",
            hint="write one with --plan-out and edit that",
        )
    if plan.io != options.io:
        said = "float numbers" if plan.io == "float" else f"{plan.io} pixels"
        raise UsageError(f"the plan is for inputs of {said}", where=f"--plan-in {where}", hint=f"give --io {plan.io}")


def _parts(losses: Mapping[str, OutputLoss], source: Source) -> dict[str, tuple[int, tuple[tuple[int, int], ...]]]:
    """Axis, counted from the front, and ranges of what an output joins."""
    ranks = {o.name: len(o.shape) for o in source.outputs}
    return {name: (ranks[name] + loss.axis, loss.parts) for name, loss in losses.items() if loss.parts}


def _check_bound(source: Source, options: Options) -> None:
    if options.min_sqnr is not None and not any(np.issubdtype(o.dtype, np.floating) for o in source.outputs):
        raise UsageError(
            "the model has no output of floating-point numbers whose SQNR could be judged",
            where="--min-sqnr",
            hint="leave it out; the report says how many integers are the same as those of the float model",
        )


def _enforce(verdict: Verdict, options: Options) -> None:
    if options.min_sqnr is None:
        return
    found = [(output.name, output.lowest_db) for output in verdict.outputs if output.lowest_db is not None]
    if not found:
        raise BoundMissedError(
            "no output of numbers holds a value on any held-aside sample, so that its SQNR is not known; nothing was written",
            where="--min-sqnr",
            hint="give samples with --calib on which it does",
        )
    for name, lowest in found:
        if lowest < options.min_sqnr:
            raise BoundMissedError(
                f"output '{name}' reaches {lowest:.1f} dB SQNR, {options.min_sqnr:g} were asked for; nothing was written",
                where="--min-sqnr",
                hint="calibrate on real images with --calib, try another --method, or --exclude the worst operators",
            )


def _why_float(offers: Mapping[str, SupportedForm | UnsupportedForm], target: Target) -> str:
    """Why nothing runs in integer, although it was asked for perhaps."""
    if any(isinstance(entry, SupportedForm) and entry.form != "requantize" for entry in offers.values()):
        return f"integer ones would save too little on {target.name} (--placement all forces them)"
    reasons = Counter(entry.reason for entry in offers.values() if isinstance(entry, UnsupportedForm))
    often = [f" ({count} of {len(offers)}: {reason})" for reason, count in reasons.most_common(1)]
    return "none has an integer form" + "".join(often)


def _report(
    at: Calibrated, planned: Planned, result: _Result | None = None, diagnosis: Diagnosis | None = None, budget: Budget | None = None
) -> Report:
    warnings = [*at.samples.doubts]
    if not any(op.reads_codes for op in planned.plan.ops.values()):
        warnings.append(f"all operators stay float: {_why_float(planned.offers, at.target)}")
    warnings += quality_warnings(result.verdict) if result is not None else []
    model = None if result is None else result.model
    return Report(
        source=at.source.path.name,
        output="" if result is None else result.output,
        version=__version__,
        method=planned.plan.method,
        bits=str(planned.plan.bits),
        target=planned.plan.target,
        architectures=at.target.architectures,
        placement="as read" if at.options.plan_in is not None else at.options.placement if budget is None else "within the budget",
        predicted=predict(planned.model, planned.plan, planned.offers, at.shapes, at.target).total,
        predicted_float=predict(at.canonical.model, None, {}, at.shapes, at.target).total,
        cost_unit=at.target.unit,
        second_cost=in_second_unit(at.canonical.model, planned.model, planned.plan, at.shapes, at.target),
        loss=planned.loss,
        calibration=at.samples.description,
        calibration_digest=at.samples.digest,
        seed=at.options.seed,
        opset=(at.source.opset, CANONICAL_OPSET if model is None else opset_of(model)),
        rewrites=at.canonical.rewrites,
        canonical_error=at.canonical.error,
        plan=planned.plan,
        verdict=None if result is None else result.verdict,
        float_bytes=at.source.bytes,
        integer_bytes=0 if result is None else model_bytes(result.model),
        latency=None if result is None else result.latency,
        notes=at.remarks if result is None or not result.interface else (*at.remarks, result.interface),
        warnings=tuple(warnings),
        peak_memory=peak_memory(),
        ir_version=0 if model is None else model.ir_version,
        requires="" if model is None else required_runtime(model),
        model=model,
        diagnosis=diagnosis,
        budget=budget,
        machines=at.target.machines,
        mobile=None if result is None else result.mobile,
        prefer="as read" if at.options.plan_in is not None else at.options.prefer,
        file_bytes=None if model is None else bytes_of(model, planned.plan, bytes_to_save(planned.model, planned.plan)),
    )
