"""The whole story: load -> canonicalise -> observe -> plan -> place -> emit -> verify -> report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from converter import __version__
from converter.calibration.input_shapes import calibration_shapes
from converter.calibration.observer import Observations, observe
from converter.calibration.preprocess import Preprocess, parse_preprocess
from converter.calibration.samples import SampleSet, load_samples
from converter.canonicalise import PROOF_SAMPLES, Canonical, canonicalise, undone
from converter.canonicalise.outputs import restore_outputs
from converter.emit.builder import emit
from converter.errors import BoundMissedError, CalibrationError, ModelError, UsageError
from converter.forms.form import Offer, Refusal
from converter.graph.exclusions import excluded_nodes
from converter.graph.operator_sets import CANONICAL_OPSET
from converter.graph.source_nodes import name_after_source
from converter.load.files import check_input, check_outputs, write_files
from converter.load.metadata import PREPROCESS
from converter.load.model import Source, load
from converter.options import Options, parse_bits
from converter.partition.bit_widths import CONTAINER_BITS
from converter.partition.cost_model import predict
from converter.partition.requantize_copies import fork_entering
from converter.plan.records import Plan
from converter.plan.serialization import plan_to_json
from converter.planning.make import Planned, adopted, find_losses, make_plan
from converter.planning.replay import read_plan
from converter.progress import SILENT, Progress
from converter.provenance import provenance
from converter.report import Report, quality_warnings, report_json
from converter.runtime.latency import LatencyRatio, latency_ratio
from converter.sensitivity.bridge_blocks import find_structure
from converter.sensitivity.context import Section
from converter.sensitivity.output_loss import OutputLoss
from converter.targets import FILE_SUFFIX, Target, find_target
from converter.targets.costs import Shapes
from converter.verify.verdict import Verdict, verify

__all__ = ["convert"]


@dataclass(frozen=True)
class _Result:
    model: onnx.ModelProto
    verdict: Verdict
    latency: LatencyRatio


def convert(
    source_path: Path,
    output_path: Path,
    options: Options,
    *,
    dry_run: bool = False,
    progress: Progress = SILENT,
    plan_out: Path | None = None,
    json_out: Path | None = None,
) -> Report:
    """Convert a float ONNX model to an int8 QDQ model.

    Args:
        source_path: the float model.
        output_path: where the result goes; replaced atomically, left untouched on any failure.
        options: how.
        dry_run: stop after placing: nothing is emitted or verified, and no model is written.
        progress: who is watching.
        plan_out: where the plan goes, as JSON.
        json_out: where the report goes, as JSON.

    Raises:
        ConverterError: see :mod:`converter.errors`. None of the files is written then.
    """
    check_input(source_path)
    outputs = {"OUT": output_path, "--plan-out": plan_out, "--json": json_out}
    target_file = Path(options.target) if options.target.endswith(FILE_SUFFIX) else None
    inputs = {"IN": source_path, "--calib": options.calib, "--plan-in": options.plan_in, "--target": target_file}
    written = {role: path for role, path in outputs.items() if path is not None}
    read = {role: path for role, path in inputs.items() if path is not None}
    check_outputs(written, read)
    given = None if options.plan_in is None else _read_plan(options.plan_in, options)
    progress.stage("load")
    source = load(source_path)
    _check_bound(source, options)
    check_outputs(written, {f"the external data {path.name}": path for path in source.external})
    try:
        report, model = _converted(source, output_path.name, options, given, dry_run, progress)
    except ModelError as error:
        if error.hint:
            raise
        hint = "see whether ONNX Runtime runs the float model, and export it again"
        raise ModelError(error.what, where=error.where or str(source_path), hint=hint) from error
    contents: dict[Path, bytes] = {}
    if plan_out is not None:
        contents[plan_out] = plan_to_json(report.plan).encode()
    if json_out is not None:
        contents[json_out] = report_json(report).encode()
    if model is not None:
        contents[output_path] = model.SerializeToString(deterministic=True)
    write_files(contents)
    return report


def _converted(
    source: Source, output: str, options: Options, given: Plan | None, dry_run: bool, progress: Progress
) -> tuple[Report, onnx.ModelProto | None]:
    target = find_target(options.target)
    samples, preprocess, remarks = _samples(source, options, progress)
    progress.stage("canonicalise")
    canonical = canonicalise(source.model, samples.calibration[:PROOF_SAMPLES], target)
    for remark in undone(canonical):
        remarks.append(remark)
        progress.note(remark)
    name_after_source(source.model, canonical.model)
    excluded = excluded_nodes(options.exclude, source.model, canonical.model)
    if parse_bits(options.bits)[1] < CONTAINER_BITS:
        fork_entering(canonical.model, excluded)
    progress.stage("observe")
    seen = observe(canonical.model, samples.calibration, seed=options.seed, threads=options.threads, progress=progress.step)
    progress.stage("plan")
    shapes = {name: stats.shape for name, stats in seen.tensors.items()}
    sections = tuple(Section(block.nodes, block.outputs) for block in find_structure(canonical.model, shapes).blocks)
    losses = find_losses(canonical.model, samples.calibration, options)
    planned = _plan(canonical.model, seen, samples, sections, target, options, excluded, losses, given, progress)
    plan = planned.plan
    result = None
    if not dry_run:
        progress.stage("emit")
        metadata = provenance(source, plan, samples, preprocess, options)
        emitted = emit(planned.model, plan, metadata)
        restore_outputs(emitted, source.model, canonical.constants)
        progress.stage("verify")
        verdict = verify(
            source,
            planned.model,
            emitted,
            plan,
            planned.offers,
            samples.held_aside,
            target,
            groups=_parts(losses, source),
            scores={name: loss.axis for name, loss in losses.items() if loss.counts_scores},
            threads=options.threads,
        )
        _enforce(verdict, options)
        model: onnx.ModelProto = ir.to_proto(emitted)
        onnx.helper.set_model_props(model, metadata)  # to_proto sorts them, the input file's order shall stay
        progress.stage("measure")
        result = _Result(model, verdict, latency_ratio(source.model, model, samples.held_aside[0]))
    report = _report(source, output, options, samples, canonical, planned, shapes, target, result, remarks)
    return report, None if result is None else result.model


def _samples(source: Source, options: Options, progress: Progress) -> tuple[SampleSet, Preprocess | None, list[str]]:
    remarks = list(source.notes)
    if options.require_data and options.calib is None:
        raise CalibrationError("there are no calibration data", where="--require-data", hint="give some with --calib")
    specs, guess = calibration_shapes(source, options.input_shapes, options.calib, options.threads)
    if guess:
        remarks.append(guess)
    preprocess = options.preprocess
    if preprocess is None and PREPROCESS in source.metadata:
        preprocess = parse_preprocess(source.metadata[PREPROCESS])
    samples = load_samples(options.calib, specs, count=options.samples, preprocess=preprocess, seed=options.seed)
    if options.require_data and samples.doubts:
        hint = "give data as the model will meet them, or leave --require-data out"
        raise CalibrationError(samples.doubts[0], where=f"--require-data with --calib {options.calib}", hint=hint)
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
    return samples, preprocess, remarks


def _plan(
    model: ir.Model,
    seen: Observations,
    samples: SampleSet,
    sections: tuple[Section, ...],
    target: Target,
    options: Options,
    excluded: frozenset[str],
    losses: Mapping[str, OutputLoss],
    given: Plan | None,
    progress: Progress,
) -> Planned:
    def look(model: ir.Model) -> Observations:
        return observe(model, samples.calibration, seed=options.seed, threads=options.threads)

    if given is not None and options.plan_in is not None:
        return adopted(given, model, seen, look, target, options, excluded)
    feeds = samples.calibration
    return make_plan(model, seen, look, feeds, sections, target, options, excluded, losses=losses, progress=progress.step)


def _read_plan(path: Path, options: Options) -> Plan:
    plan = read_plan(path)
    if plan.bits != options.bits:
        raise UsageError(
            f"the plan is for {plan.bits}, not for {options.bits}",
            where=f"--plan-in {path}",
            hint="write one with --plan-out and edit that",
        )
    return plan


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


def _why_float(offers: Mapping[str, Offer | Refusal], target: Target) -> str:
    """Why nothing runs in integer, although it was asked for perhaps."""
    if any(isinstance(entry, Offer) and entry.form != "requantize" for entry in offers.values()):
        return f"integer ones would save too little on {target.name} (--placement all forces them)"
    reasons = Counter(entry.reason for entry in offers.values() if isinstance(entry, Refusal))
    often = [f" ({count} of {len(offers)}: {reason})" for reason, count in reasons.most_common(1)]
    return "none has an integer form" + "".join(often)


def _report(
    source: Source,
    output: str,
    options: Options,
    samples: SampleSet,
    canonical: Canonical,
    planned: Planned,
    shapes: Shapes,
    target: Target,
    result: _Result | None,
    remarks: list[str],
) -> Report:
    warnings = [*samples.doubts]
    if not any(op.reads_codes for op in planned.plan.ops.values()):
        warnings.append(f"all operators stay float: {_why_float(planned.offers, target)}")
    warnings += quality_warnings(result.verdict) if result is not None else []
    return Report(
        source=source.path.name,
        output="" if result is None else output,
        version=__version__,
        method=planned.plan.method,
        bits=planned.plan.bits,
        target=planned.plan.target,
        architectures=target.architectures,
        placement="as read" if options.plan_in is not None else options.placement,
        predicted=predict(planned.model, planned.plan, planned.offers, shapes, target).total,
        predicted_float=predict(planned.model, None, {}, shapes, target).total,
        cost_unit=target.unit,
        loss=planned.loss,
        calibration=samples.description,
        calibration_digest=samples.digest,
        seed=options.seed,
        opset=(source.opset, CANONICAL_OPSET),
        rewrites=canonical.rewrites,
        canonical_error=canonical.error,
        plan=planned.plan,
        verdict=None if result is None else result.verdict,
        float_bytes=source.bytes,
        integer_bytes=0 if result is None else result.model.ByteSize(),
        latency=None if result is None else result.latency,
        notes=tuple(remarks),
        warnings=tuple(warnings),
    )
