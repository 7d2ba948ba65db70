"""An emitted model against its plan, the float model and the bound that was asked for; every tensor measured."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir

from converter.diagnosis.diagnose import diagnose
from converter.diagnosis.records import Diagnosis
from converter.errors import BoundMissedError, UsageError
from converter.load.model import Source
from converter.options import Options
from converter.planning.make import Planned
from converter.progress import SILENT, Progress
from converter.sensitivity.output_loss import OutputLoss
from converter.stages.calibrate import Calibrated
from converter.verify.verdict import Verdict, verify

__all__ = ["check_bound", "diagnose_plan", "enforce_bound", "verify_model"]


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


def check_bound(source: Source, options: Options) -> None:
    """Refuse a bound on the quality of a model whose outputs have none.

    Raises:
        UsageError: it has no output of floating-point numbers.
    """
    if options.min_sqnr is not None and not any(np.issubdtype(o.dtype, np.floating) for o in source.outputs):
        raise UsageError(
            "the model has no output of floating-point numbers whose SQNR could be judged",
            where="--min-sqnr",
            hint="leave it out; the report says how many integers are the same as those of the float model",
        )


def enforce_bound(verdict: Verdict, options: Options) -> None:
    """Refuse a model that misses the bound which the options hold, if they hold one.

    Raises:
        BoundMissedError: an output does, or what it reaches is not known.
    """
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


def _parts(losses: Mapping[str, OutputLoss], source: Source) -> dict[str, tuple[int, tuple[tuple[int, int], ...]]]:
    """Axis, counted from the front, and ranges of what an output joins."""
    ranks = {o.name: len(o.shape) for o in source.outputs}
    return {name: (ranks[name] + loss.axis, loss.parts) for name, loss in losses.items() if loss.parts}
