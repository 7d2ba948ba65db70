"""Verify: load the emitted model in ONNX Runtime, compare it with float and with the plan, count what runs in integer."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from converter.errors import ModelError, VerificationError
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.graph.shape_inference import check_model
from converter.graph.weight_files import model_bytes
from converter.load.files import temporary_folder
from converter.load.model import Source
from converter.plan.records import Plan
from converter.progress import SILENT, Progress
from converter.quantization.output_codes import output_grids
from converter.runtime.session import Feed, open_session, run_session
from converter.targets import Target
from converter.verify.fusion_hazards import check_emitted
from converter.verify.integer_coverage import IntegerCoverage, measure_integer_coverage
from converter.verify.parity import PlanParity, check_finite, integers_are_broken, parity_is_broken, plan_parity, selected_rows
from converter.verify.quality import Groups, OutputQuality, measure
from converter.verify.row_matching import match_rows

__all__ = ["Verdict", "verify"]


_RUNS, _SIMULATED = 0.3, 0.8
"""Shares of the time behind the runs of both models, and behind the simulation too; measured on networks of some hundred operators."""


@dataclass(frozen=True)
class Verdict:
    """What verification found.

    Attributes:
        outputs: quality, in order.
        parity_db: SQNR between the emitted model and its reference over the first four samples, of the output that agrees least;
            None without an output of numbers.
        parity_reference: what the emitted model was compared with.
        integer_coverage: what ran in integer.
        samples: how many were compared.
        parity_agreement: as ``parity_db``, share of equal elements of the output of integers that agrees least; None without one.
    """

    outputs: tuple[OutputQuality, ...]
    parity_db: float | None
    parity_reference: str
    integer_coverage: IntegerCoverage
    samples: int
    parity_agreement: float | None = None


def verify(
    source: Source,
    canonical: ir.Model,
    emitted: ir.Model,
    plan: Plan,
    offers: Mapping[str, SupportedForm | UnsupportedForm],
    feeds: Sequence[Feed],
    target: Target,
    *,
    groups: Groups | None = None,
    scores: Mapping[str, int] | None = None,
    threads: int = 0,
    progress: Progress = SILENT,
) -> Verdict:
    """Check an emitted model on held-aside samples.

    Args:
        canonical: the model that the plan was made for, with its equalizations, non-uniform quantizers and constant gates.
        offers: for the multiply-accumulates of each operator.
        target: for the session's settings.
        groups: channels of outputs that are looked at apart.
        scores: the axis of the classes, by name of an output that holds class scores; may be negative.
        threads: of the runtime; 0 leaves the choice to it.
        progress: who is watching.

    Raises:
        ModelError: the float model does not run on a sample.
        VerificationError: unsafe graph, changed interface, not loadable, not finite where float is, or parity broken.
    """
    check_emitted(emitted)
    proto: onnx.ModelProto = ir.to_proto(emitted)
    _check_interface(source, proto, plan)
    settings = target.session_settings.get(platform.machine(), {})
    progress.part("samples", 0.0, _RUNS)
    wanted = _float_answers(source, feeds, threads, progress)
    got = _emitted_answers(proto, feeds, threads, settings, progress)
    rows = selected_rows(canonical, feeds[0])
    pairs = [match_rows(one, other, rows) for one, other in zip(wanted, got, strict=True)]
    check_finite(canonical, plan, feeds, pairs)
    qualities = measure(pairs, rows, groups or {}, scores or {})
    progress.part("simulation", _RUNS, _SIMULATED)
    parity = plan_parity(canonical, proto, plan, feeds, got, progress=progress.step)
    _check_parity(parity, qualities)
    _check_constants({o.name for o in source.outputs} - {str(v.name) for v in canonical.graph.outputs}, wanted, got)
    progress.part("kernels", _SIMULATED, 1.0)
    with temporary_folder(2 * model_bytes(proto)) as folder:
        integer_coverage = measure_integer_coverage(proto, plan, offers, feeds[0], settings, folder)
    return Verdict(qualities, parity.db, parity.reference, integer_coverage, len(feeds), parity.agreement)


def _float_answers(source: Source, feeds: Sequence[Feed], threads: int, progress: Progress) -> list[Feed]:
    """The first half of the runs; the session, which is large with its model, goes with them."""
    floats = open_session(source.model, threads=threads)
    wanted: list[Feed] = []
    for feed in feeds:
        wanted.append(run_session(floats, feed))
        progress.step(len(wanted), 2 * len(feeds))
    return wanted


def _emitted_answers(
    proto: onnx.ModelProto, feeds: Sequence[Feed], threads: int, settings: Mapping[str, str], progress: Progress
) -> list[Feed]:
    """The second half of them.

    Raises:
        VerificationError: it is no valid model, or does not run.
    """
    try:
        check_model(proto)
        session = open_session(proto, threads=threads, settings=settings)
        got: list[Feed] = []
        for feed in feeds:
            got.append(run_session(session, feed))
            progress.step(len(feeds) + len(got), 2 * len(feeds))
    except (ModelError, onnx.checker.ValidationError) as error:
        what = error.what if isinstance(error, ModelError) else str(error).strip().splitlines()[0]
        raise VerificationError(f"the emitted model does not run: {what}", where=getattr(error, "where", "")) from error
    return got


def _check_parity(parity: PlanParity, qualities: Sequence[OutputQuality]) -> None:
    """Compare what separates the emitted model from its plan with what separates it from float.

    Raises:
        VerificationError: it is not small beside it.
    """
    distances = []
    quality_db = min((q.sqnr_db for q in qualities if q.sqnr_db is not None), default=0.0)
    if parity.db is not None and parity_is_broken(parity.db, quality_db):
        distances.append(f"{parity.db:.1f} dB between them")
    agreements = {q.name: q.agreement for q in qualities if q.sqnr_db is None and q.agreement is not None}
    for name, differing in parity.differing.items():
        if integers_are_broken(differing, agreements.get(name, 1.0)):
            distances.append(f"{differing.count} of {differing.total} elements of '{name}' differ")
    if distances:
        raise VerificationError(
            f"the emitted model does not compute what was planned: {distances[0]}",
            where=f"compared with {parity.reference}",
            hint="report this; --exclude the operators that the runtime gets wrong to go on",
        )


def _check_interface(source: Source, proto: onnx.ModelProto, plan: Plan) -> None:
    codes = output_grids({p.key: p.value for p in proto.metadata_props}) if plan.io != "float" else {}

    def signature(values: Any) -> list[tuple[str, int, list[int | str]]]:
        return [
            (
                v.name,
                onnx.TensorProto.FLOAT if v.name in codes else v.type.tensor_type.elem_type,
                [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim],
            )
            for v in values
        ]

    initializers = {i.name for i in source.model.graph.initializer}
    inputs = [i for i in source.model.graph.input if i.name not in initializers]
    for kind, before, after in (
        ("inputs", inputs, proto.graph.input),
        ("outputs", source.model.graph.output, proto.graph.output),
    ):
        if signature(before) != signature(after):
            raise VerificationError(f"the model's {kind} changed", where=f"{signature(before)} became {signature(after)}")
    kept = {p.key: p.value for p in proto.metadata_props}
    for key, value in source.metadata.items():
        if kept.get(key) != value:
            raise VerificationError("the model's metadata changed", where=f"key '{key}'")


def _check_constants(
    names: Collection[str], wanted: Sequence[Mapping[str, npt.NDArray[Any]]], got: Sequence[Mapping[str, npt.NDArray[Any]]]
) -> None:
    """Outputs that nothing computes, constants and inputs passed through, are the source's to the last bit."""
    for name in sorted(names):
        if any(not np.array_equal(w[name], g[name], equal_nan=w[name].dtype.kind == "f") for w, g in zip(wanted, got, strict=True)):
            raise VerificationError("an output that is not computed changed", where=f"output '{name}'", hint="report this")
