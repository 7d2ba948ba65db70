"""What was done and found, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from converter import __version__
from converter.budget.records import Budget
from converter.diagnosis.records import Diagnosis
from converter.emit.file_bytes import bytes_of
from converter.emit.requirement import opset_of, required_runtime
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.graph.operator_sets import CANONICAL_OPSET
from converter.graph.weight_files import model_bytes
from converter.partition.cost_model import in_second_unit, predict
from converter.planning.make import Planned
from converter.planning.stored_weights import bytes_to_save
from converter.report import MobileFile, Report, quality_warnings
from converter.runtime.latency import LatencyRatio
from converter.stages.calibrate import Calibrated
from converter.system.peak_memory import peak_memory
from converter.targets import Target
from converter.verify.verdict import Verdict

__all__ = ["Result", "report_of"]


@dataclass(frozen=True)
class Result:
    """An emitted model and what was measured on it.

    Attributes:
        output: name of the file that it goes to; empty if it goes to none.
        model: what was emitted.
        verdict: on it.
        latency: against the float model; None if it was not measured.
        mobile: the same model in the runtime's mobile format, if that was asked for.
        interface: a sentence on pixels and codes; empty where inputs and outputs are as in the file that was given.
    """

    output: str
    model: onnx.ModelProto
    verdict: Verdict
    latency: LatencyRatio | None
    mobile: MobileFile | None
    interface: str


def report_of(
    at: Calibrated, planned: Planned, result: Result | None = None, diagnosis: Diagnosis | None = None, budget: Budget | None = None
) -> Report:
    """The report on a conversion; without a result on a dry run, without a diagnosis or a budget where none was asked for."""
    warnings = [*at.samples.doubts]
    if planned.plan.source not in ("", at.source.digest):
        warnings.append(
            "the plan was made for another model file: what fits its numbers may not fit these (--plan-out makes one for this file)"
        )
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


def _why_float(offers: Mapping[str, SupportedForm | UnsupportedForm], target: Target) -> str:
    """Why nothing runs in integer, although it was asked for perhaps."""
    if any(isinstance(entry, SupportedForm) and entry.form != "requantize" for entry in offers.values()):
        return f"integer ones would save too little on {target.name} (--placement all forces them)"
    reasons = Counter(entry.reason for entry in offers.values() if isinstance(entry, UnsupportedForm))
    often = [f" ({count} of {len(offers)}: {reason})" for reason, count in reasons.most_common(1)]
    return "none has an integer form" + "".join(often)
