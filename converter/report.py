"""Report: what a conversion did and found, as one record and as JSON."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import onnx

from converter.budget.records import Budget, told
from converter.canonicalise import Rewrite
from converter.diagnosis.json_record import diagnosis_record
from converter.diagnosis.records import Diagnosis
from converter.emit.file_bytes import FileBytes
from converter.partition.bit_widths import width_counts
from converter.partition.cost_model import CostEstimate
from converter.plan.records import Plan
from converter.runtime.latency import LatencyRatio
from converter.targets import other_machines
from converter.verify.quality import OutputQuality
from converter.verify.verdict import Verdict

__all__ = [
    "LOW_AGREEMENT",
    "LOW_SQNR_DB",
    "MobileFile",
    "Report",
    "Summary",
    "finite",
    "quality_warnings",
    "report_json",
    "size_advice",
    "summarise",
]

LOW_SQNR_DB = 15.0
"""An output, or a group of its channels, below this gets a warning."""

LOW_AGREEMENT = 0.9
"""An output of integers of which a smaller share is the same gets a warning, unless they are close as numbers."""

_MUCH = 0.05
"""Share of a file from which on it is worth telling that its float weights could be smaller."""

_CLOSE_INTEGERS_DB = 30.0
"""As good for a picture of integers as for one of numbers."""


@dataclass(frozen=True)
class MobileFile:
    """The result in ONNX Runtime's mobile format.

    Attributes:
        name: of the file.
        content: of the file.
        onnxruntime: version that wrote it.
    """

    name: str
    content: bytes = field(repr=False)
    onnxruntime: str


@dataclass(frozen=True)
class Report:
    """Everything worth knowing about one conversion.

    Attributes:
        source: file name of the input, or ``the given model``.
        output: file name of the result, an empty string if none was written.
        version: of this tool.
        method: that chose the grids.
        bits: for example ``W8A8``.
        target: name of the target.
        architectures: of the machines it stands for, as ``platform.machine`` calls them.
        placement: as asked for.
        predicted: cost of one inference by the target's prices.
        predicted_float: the same of the float model, canonicalised.
        cost_unit: of both.
        second_cost: both in the target's second unit; None if it has none.
        loss: by which the method judged; empty where it needed none.
        calibration: a sentence on the samples.
        calibration_digest: sha256 of the samples.
        seed: of all random choices.
        opset: (of the input, of the result; on a dry run, of the canonical model).
        ir_version: of the result; 0 on a dry run.
        requires: the runtime that the result needs, as a requirement of Python packages; empty on a dry run.
        rewrites: what canonicalisation did.
        canonical_error: largest relative difference it left.
        plan: the plan.
        verdict: None on a dry run.
        float_bytes: size of the input.
        integer_bytes: size of the result.
        latency: None on a dry run, and where :attr:`not_measured` says so.
        notes: sentences on what was assumed, which whoever is watching has been told.
        warnings: sentences on what was found.
        peak_memory: bytes that this process took at most so far; 0 where the system does not say.
        model: the result; None on a dry run.
        diagnosis: tensor by tensor; None unless it was asked for.
        budget: what became of an accuracy budget; None without one.
        machines: that the target stands for, in words.
        seconds: that each stage took, in order; files are written after the last of them.
        mobile: the result in the mobile format; None unless it was asked for.
        prefer: as asked for.
        file_bytes: where the bytes of the result are; None on a dry run.
    """

    source: str
    output: str
    version: str
    method: str
    bits: str
    target: str
    architectures: tuple[str, ...]
    placement: str
    predicted: float
    predicted_float: float
    cost_unit: str
    loss: str
    calibration: str
    calibration_digest: str
    seed: int
    opset: tuple[int, int]
    rewrites: tuple[Rewrite, ...]
    canonical_error: float
    plan: Plan
    verdict: Verdict | None
    float_bytes: int
    integer_bytes: int
    latency: LatencyRatio | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    peak_memory: int = 0
    ir_version: int = 0
    requires: str = ""
    model: onnx.ModelProto | None = field(default=None, repr=False, compare=False)
    diagnosis: Diagnosis | None = field(default=None, repr=False)
    budget: Budget | None = None
    machines: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    mobile: MobileFile | None = None
    prefer: str = "accuracy"
    file_bytes: FileBytes | None = None
    second_cost: CostEstimate | None = None

    @property
    def costs(self) -> tuple[CostEstimate, ...]:
        """What one inference costs in each unit of the target, that of the placement first; none where nothing costs anything."""
        first = CostEstimate(self.cost_unit, self.predicted, self.predicted_float)
        return tuple(cost for cost in (first, self.second_cost) if cost is not None and cost.predicted_float)

    @property
    def at_home(self) -> bool:
        """Whether this machine is one of those that the target stands for."""
        return platform.machine() in self.architectures

    @property
    def not_measured(self) -> str:
        """Why latencies were not compared; empty if they were, and on a dry run."""
        if self.verdict is None or self.latency is not None:
            return ""
        return f"not measured: the file is for {self.target}, this machine is {platform.machine()} (--latency compares here)"


def quality_warnings(verdict: Verdict) -> list[str]:
    """Sentences on outputs that are far from float, and on those of which nothing is known."""
    return [warning for output in verdict.outputs for warning in _output_warnings(output)]


def _output_warnings(output: OutputQuality) -> list[str]:
    name = f"output '{output.name}'"
    if output.sqnr_db is None and output.agreement is None:
        if not output.rows_matched:
            return []  # its very shape has no place for any
        return [f"{name} holds no value on any held-aside sample; its accuracy is not known: give other samples with --calib"]
    if output.sqnr_db is None:
        assert output.agreement is not None
        if output.agreement >= LOW_AGREEMENT or (output.integers_db or 0.0) >= _CLOSE_INTEGERS_DB:
            return []
        advice = "check the accuracy before use; calibrate on real samples (--calib), try another --method, or --exclude the last layers"
        return [f"{name} holds the same integers as float at {output.agreement:.1%} of its places only; {advice}"]
    found = []
    if output.sqnr_db < LOW_SQNR_DB:
        found.append(f"{name} is far from float: {output.sqnr_db:.1f} dB SQNR; check the accuracy before use")
    for group in output.groups:
        if group.sqnr_db is None or group.sqnr_db >= LOW_SQNR_DB:
            continue
        collapsed = {"": "", "zero": " (all zero)", "constant": " (all the same number)"}[group.collapsed]
        channels = f"channel {group.start}" if group.stop == group.start + 1 else f"channels {group.start}..{group.stop - 1}"
        verb = "is" if group.stop == group.start + 1 else "are"
        found.append(
            f"{channels} of {name} {verb} far from float: {group.sqnr_db:.1f} dB SQNR{collapsed}, perhaps for sharing a scale with larger "
            "numbers: --exclude the operator that joins them, or do without --full and --placement all"
        )
    return found


@dataclass(frozen=True)
class Summary:
    """A conversion in a few sentences.

    Attributes:
        gained: what is better than in float.
        lost: what is worse.
        next: what to do now.
    """

    gained: tuple[str, ...]
    lost: tuple[str, ...]
    next: str


def summarise(report: Report) -> Summary:
    """What is gained, what is lost, and what to do next."""
    return Summary(tuple(_gained(report)), tuple(_lost(report)), _next_step(report))


def _gained(report: Report) -> list[str]:
    found = []
    if report.integer_bytes and report.float_bytes:
        found.append(f"The file has {report.integer_bytes / report.float_bytes:.0%} of the size of the float one.")
    for cost in report.costs:
        share = cost.predicted / cost.predicted_float
        found.append(f"One inference is predicted to take {share:.0%} of the {cost.unit} of float on {report.target}.")
    if report.verdict is not None:
        found.append(f"{report.verdict.integer_coverage.coverage:.1%} of the multiply-accumulates ran in integer.")
    if report.latency is not None:
        where = "" if report.at_home else ", which the file is not made for"
        ratio = report.latency.ratio
        speed = f"{ratio:.2f} times as fast as" if ratio >= 1 else f"slower than, at {ratio:.2f} times the speed of,"
        found.append(f"On this machine{where}, it is {speed} float.")
    return found


def _lost(report: Report) -> list[str]:
    if report.verdict is None:
        return ["Nothing was emitted on this dry run, so the outputs were not compared."]
    found = [] if report.budget is None else [f"Accuracy budget: {told(report.budget)}."]
    for output in report.verdict.outputs:
        if output.sqnr_db is not None:
            agreement = "" if output.agreement is None else f", with the same highest score at {output.agreement:.1%} of places"
            found.append(f"Output '{output.name}' has {output.sqnr_db:.1f} dB SQNR against float{agreement}.")
        elif output.agreement is not None:
            found.append(f"Output '{output.name}' holds the same integers at {output.agreement:.1%} of places.")
        else:
            found.append(f"Output '{output.name}' held no value, so its accuracy is not known.")
    return found


def _next_step(report: Report) -> str:
    lowest = [o.lowest_db for o in report.verdict.outputs if o.lowest_db is not None] if report.verdict is not None else []
    worst = report.diagnosis.worst[0].tensor if report.diagnosis is not None and report.diagnosis.worst else ""
    if not any(op.reads_codes for op in report.plan.ops.values()):
        return "Nothing runs in integer: the warnings say why; try --placement all, or another --target."
    if "synthetic" in report.calibration:
        return "Give real images with --calib: this was calibrated on built-in synthetic samples."
    if lowest and min(lowest) < LOW_SQNR_DB:
        return f"Check the accuracy on labelled data before use, and keep the worst tensors float, from '{worst}' on, if it is short."
    if report.verdict is None:
        return "Convert without --dry-run to see what is gained and lost."
    if report.budget is not None:
        return "Measure the final accuracy on data that did not choose the placement, and the speed on a device."
    if report.not_measured:
        return f"Measure its speed on a device of class {report.target}, and its accuracy on labelled data."
    return "Measure its accuracy on labelled data."


def size_advice(report: Report) -> str:
    """What can be said of float weights, as a sentence: that others could be smaller, or that there were none; empty if nothing."""
    found = report.file_bytes
    if found is None:
        return ""
    if report.prefer == "size":
        return "" if found.stored else "--prefer size saves nothing here: no layer in float has weights that would be smaller in 8 bits"
    share = found.to_save / found.total
    how = "with the weights of layers in float stored in 8 bits, and be as fast"
    return f"--prefer size would save {share:.0%}, {how}" if share >= _MUCH else ""


def report_json(report: Report) -> str:
    """The report as JSON; grids are left to ``--plan-out``."""
    apart = ("plan", "model", "verdict", "latency", "rewrites", "notes", "warnings", "opset", "diagnosis", "budget", "mobile", "file_bytes")
    record: dict[str, Any] = {k: v for k, v in vars(report).items() if k not in apart}
    record["opset"] = list(report.opset)
    record["second_cost"] = None if report.second_cost is None else asdict(report.second_cost)
    record["seconds"] = {stage: round(seconds, 2) for stage, seconds in report.seconds.items()}
    record["rewrites"] = [asdict(r) for r in report.rewrites]
    record["tensor_bits"], record["weight_bits"] = width_counts(report.plan)
    record["operators"] = {name: {"op_type": op.op_type, "runs": op.runs, "reason": op.reason} for name, op in report.plan.ops.items()}
    if report.verdict is not None:
        integer_coverage = report.verdict.integer_coverage
        record["outputs"] = [asdict(o) for o in report.verdict.outputs]
        record["parity_db"] = report.verdict.parity_db
        record["parity_agreement"] = report.verdict.parity_agreement
        record["parity_reference"] = report.verdict.parity_reference
        record["held_aside_samples"] = report.verdict.samples
        record["integer_coverage"] = integer_coverage.coverage
        record["integer_macs"], record["total_macs"] = integer_coverage.integer_macs, integer_coverage.total_macs
        record["kernels"] = integer_coverage.kernels
        record["float_operators"] = [asdict(f) for f in integer_coverage.float_ops]
    record["file_bytes"] = None if report.file_bytes is None else asdict(report.file_bytes)
    record["latency_ratio"] = None if report.latency is None else {**asdict(report.latency), "machine": platform.machine()}
    record["latency_not_measured"] = report.not_measured
    record["other_machines"] = other_machines(report.target)
    record["ort"] = None if report.mobile is None else _mobile_record(report.mobile)
    record["notes"], record["warnings"] = list(report.notes), list(report.warnings)
    if report.budget is not None:
        record["budget"] = asdict(report.budget)
    if report.diagnosis is not None:
        record["summary"] = asdict(summarise(report))
        record["diagnosis"] = diagnosis_record(report.diagnosis)
    return json.dumps(finite(record), indent=1, allow_nan=False) + "\n"


def _mobile_record(mobile: MobileFile) -> dict[str, Any]:
    return {"file": mobile.name, "bytes": len(mobile.content), "onnxruntime": mobile.onnxruntime}


def finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
