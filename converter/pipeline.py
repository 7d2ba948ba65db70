"""The whole story: load -> canonicalise -> observe -> plan -> place -> emit -> verify -> report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from converter import __version__
from converter.canonicalise import CANONICAL_OPSET, Canonical, canonicalise
from converter.emit import emit
from converter.errors import BoundMissedError, UsageError
from converter.exclude import excluded_nodes
from converter.latency import LatencyRatio, latency_ratio
from converter.load import Source, load
from converter.methods import METHODS, Problem
from converter.observe import Observations, observe
from converter.offers import Offer, Refusal, offer
from converter.options import Options, parse_bits
from converter.place import place
from converter.plan import Plan, plan_from_json
from converter.plan_check import check_plan
from converter.preprocess import Preprocess, parse_preprocess, spec_text
from converter.progress import SILENT, Progress
from converter.report import LOW_SQNR_DB, Report
from converter.samples import SampleSet, load_samples
from converter.shapes import calibration_shapes
from converter.targets import TARGETS, Target
from converter.verify import Verdict, verify

__all__ = ["PREPROCESS_KEY", "convert"]

PREPROCESS_KEY = "bridgequant.preprocess"
"""Metadata in which an exported model says how its images are prepared."""

_PROOF_SAMPLES = 2


@dataclass(frozen=True)
class _Result:
    model: onnx.ModelProto
    verdict: Verdict
    latency: LatencyRatio


def convert(source_path: Path, output_path: Path, options: Options, *, dry_run: bool = False, progress: Progress = SILENT) -> Report:
    """Convert a float ONNX model to an int8 QDQ model.

    Args:
        source_path: the float model.
        output_path: where the result goes; replaced atomically, left untouched on any failure.
        options: how.
        dry_run: stop after placing: nothing is emitted, verified or written.
        progress: who is watching.

    Raises:
        ConverterError: see :mod:`converter.errors`.
    """
    target = TARGETS[options.target]
    progress.stage("load")
    source = load(source_path)
    _check_paths(source_path, output_path, dry_run)
    samples, preprocess, remarks = _samples(source, options, progress)
    progress.stage("canonicalise")
    canonical = canonicalise(source.model, samples.calibration[:_PROOF_SAMPLES])
    excluded = excluded_nodes(options.exclude, source.model, canonical.model)
    progress.stage("observe")
    seen = observe(canonical.model, samples.calibration, seed=options.seed, threads=options.threads, progress=progress.step)
    progress.stage("plan")
    plan, offers = _plan(canonical, seen, target, options, excluded)
    result = None
    if not dry_run:
        progress.stage("emit")
        emitted = emit(canonical.model, plan, _metadata(source, plan, samples, preprocess, options))
        progress.stage("verify")
        verdict = verify(source, canonical.model, emitted, plan, offers, samples.held_aside, target, threads=options.threads)
        model: onnx.ModelProto = ir.to_proto(emitted)
        progress.stage("measure")
        result = _Result(model, verdict, latency_ratio(source.model, model, samples.held_aside[0]))
        _enforce(verdict, options)
        write_atomically(output_path, model.SerializeToString(deterministic=True))
    return _report(source, output_path, options, samples, canonical, plan, result, remarks)


def _check_paths(source_path: Path, output_path: Path, dry_run: bool) -> None:
    if output_path.is_dir():
        raise UsageError("the output is a folder", where=str(output_path), hint="name a file inside it")
    if output_path.exists() and source_path.resolve() == output_path.resolve():
        raise UsageError("input and output are the same file", where=str(output_path), hint="name another output")
    folder = output_path.resolve().parent
    if not dry_run and not folder.is_dir():
        raise UsageError("the output folder does not exist", where=str(folder), hint="create it first")
    if not dry_run and not os.access(folder, os.W_OK):
        raise UsageError("the output folder is not writable", where=str(folder), hint="choose another one")


def _samples(source: Source, options: Options, progress: Progress) -> tuple[SampleSet, Preprocess | None, list[str]]:
    remarks = []
    specs, guess = calibration_shapes(source, options.input_shapes, options.calib, options.threads)
    if guess:
        remarks.append(guess)
    preprocess = options.preprocess
    if preprocess is None and PREPROCESS_KEY in source.metadata:
        preprocess = parse_preprocess(source.metadata[PREPROCESS_KEY])
    samples = load_samples(options.calib, specs, count=options.samples, preprocess=preprocess, seed=options.seed)
    if samples.kind == "synthetic":
        remarks.append("calibrated on built-in synthetic images; give --calib a folder of real ones for better accuracy")
    if samples.skipped:
        remarks.append(f"{samples.skipped} unreadable images were skipped")
    if samples.shared:
        remarks.append("there was one sample only: it was used to calibrate and to compare")
    for remark in remarks:
        progress.note(remark)
    return samples, preprocess, remarks


def _plan(
    canonical: Canonical, seen: Observations, target: Target, options: Options, excluded: frozenset[str]
) -> tuple[Plan, dict[str, Offer | Refusal]]:
    weight_bits, activation_bits = parse_bits(options.bits)
    offers = offer(canonical.model, seen, target, activation_bits=activation_bits, weight_bits=weight_bits, excluded=excluded)
    if options.plan_in is not None:
        plan = plan_from_json(_read_plan(options.plan_in), options.plan_in)
        check_plan(plan, canonical.model, offers, target, options.plan_in)
        return plan, offers
    constants = {(n, i): c for n, o in offers.items() if isinstance(o, Offer) for i, c in o.constants.items()}
    choice = METHODS[options.method](Problem(seen.tensors, constants, activation_bits, target.signed_activations))
    return place(canonical.model, offers, choice, seen, target, method=options.method, bits=options.bits.upper()), offers


def _read_plan(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the plan cannot be read ({error})", where=f"--plan-in {path}", hint="check the path") from None


def _metadata(source: Source, plan: Plan, samples: SampleSet, preprocess: Preprocess | None, options: Options) -> Mapping[str, str]:
    own = {
        "bridgequant.version": __version__,
        "bridgequant.method": plan.method,
        "bridgequant.bits": plan.bits,
        "bridgequant.target": plan.target,
        "bridgequant.calibration": samples.digest,
        "bridgequant.seed": str(options.seed),
        "bridgequant.source": source.digest,
    }
    if preprocess is not None and PREPROCESS_KEY not in source.metadata:
        own[PREPROCESS_KEY] = spec_text(preprocess)
    return {**source.metadata, **{k: v for k, v in own.items() if k not in source.metadata}}


def _enforce(verdict: Verdict, options: Options) -> None:
    if options.min_sqnr is None:
        return
    for output in verdict.outputs:
        if output.sqnr_db < options.min_sqnr:
            raise BoundMissedError(
                f"output '{output.name}' reaches {output.sqnr_db:.1f} dB SQNR, {options.min_sqnr:g} were asked for; nothing was written",
                where="--min-sqnr",
                hint="calibrate on real images with --calib, try another --method, or --exclude the worst operators",
            )


def write_atomically(path: Path, data: bytes) -> None:
    """Write a temporary file beside ``path`` and rename it.

    Raises:
        UsageError: the folder or the disk does not take it; nothing is left behind.
    """
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise UsageError(
                f"the output cannot be written: {error.strerror or error}", where=str(path), hint="free some space or choose another folder"
            ) from error
        raise


def _report(
    source: Source,
    output_path: Path,
    options: Options,
    samples: SampleSet,
    canonical: Canonical,
    plan: Plan,
    result: _Result | None,
    remarks: list[str],
) -> Report:
    warnings = list(remarks)
    warnings += [f"rewrite '{r.name}' changed the outputs by {r.error:.1e} and was undone" for r in canonical.rewrites if not r.kept]
    if result is not None:
        for output in result.verdict.outputs:
            if output.sqnr_db < LOW_SQNR_DB:
                warnings.append(f"output '{output.name}' is far from float: {output.sqnr_db:.1f} dB SQNR; check the accuracy before use")
        if result.latency.ratio < 1 and options.target == "x86":
            warnings.append("the int8 model is slower than float on this machine")
    return Report(
        source=source.path.name,
        output="" if result is None else output_path.name,
        version=__version__,
        method=plan.method,
        bits=plan.bits,
        target=plan.target,
        calibration=samples.description,
        calibration_digest=samples.digest,
        seed=options.seed,
        opset=(source.opset, CANONICAL_OPSET),
        rewrites=canonical.rewrites,
        canonical_error=canonical.error,
        plan=plan,
        verdict=None if result is None else result.verdict,
        float_bytes=source.bytes,
        integer_bytes=0 if result is None else result.model.ByteSize(),
        latency=None if result is None else result.latency,
        warnings=tuple(warnings),
    )
