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

from converter.census import Census, take_census
from converter.check import check_emitted
from converter.errors import ModelError, VerificationError
from converter.graph import is_float_output
from converter.load import Source
from converter.offers import Offer, Refusal
from converter.paths import temporary_folder
from converter.plan import Plan
from converter.runtime import Feed, open_session, run_session
from converter.runtime_kernels import runtime_kernels
from converter.simulate import simulate
from converter.targets import Target
from converter.torch_ops import UnknownOperatorError

__all__ = [
    "CHAOS_MARGIN_DB",
    "LEAST_PARITY_DB",
    "PARITY_SAMPLES",
    "OutputQuality",
    "Verdict",
    "parity_is_broken",
    "plan_parity",
    "sqnr",
    "verify",
]

LEAST_PARITY_DB = 30.0
"""Below this, emitted model and plan do not describe the same computation, unless the network is chaotic."""

CHAOS_MARGIN_DB = 6.0
"""In a chaotic network a single moved code changes everything, but the model is still closer to its plan than to float."""

PARITY_SAMPLES = 4
"""Samples on which an emitted model is compared with its plan."""

_EXACT_DB = 200.0


@dataclass(frozen=True)
class OutputQuality:
    """How one output of the emitted model compares with float, over all held-aside samples.

    Attributes:
        name: of the output.
        sqnr_db: signal to quantization noise ratio.
        agreement: share of positions whose highest score is at the same place, where the output looks like class scores.
    """

    name: str
    sqnr_db: float
    agreement: float | None


@dataclass(frozen=True)
class Verdict:
    """What verification found.

    Attributes:
        outputs: quality, in order.
        parity_db: SQNR between the emitted model and its reference over the first four samples, of the output that agrees least.
        parity_reference: what the emitted model was compared with.
        census: what ran in integer.
        samples: how many were compared.
    """

    outputs: tuple[OutputQuality, ...]
    parity_db: float
    parity_reference: str
    census: Census
    samples: int


def sqnr(signal: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """10 log10(E[x^2] / E[(x - y)^2]) in dB, at most 200."""
    x, y = signal.astype(np.float64), other.astype(np.float64)
    noise = float(np.square(x - y).sum())
    power = float(np.square(x).sum())
    if noise == 0.0:
        return _EXACT_DB
    return float(np.clip(10.0 * np.log10(max(power, 1e-300) / noise), -_EXACT_DB, _EXACT_DB))


def verify(
    source: Source,
    canonical: ir.Model,
    emitted: ir.Model,
    plan: Plan,
    offers: Mapping[str, Offer | Refusal],
    feeds: Sequence[Feed],
    target: Target,
    *,
    threads: int = 0,
) -> Verdict:
    """Check an emitted model on held-aside samples.

    Raises:
        VerificationError: unsafe graph, changed interface, not loadable, not finite, or parity broken.
    """
    check_emitted(emitted)
    proto: onnx.ModelProto = ir.to_proto(emitted)
    _check_interface(source, proto)
    settings = target.session_settings.get(platform.machine(), {})
    try:
        onnx.checker.check_model(proto)
        session = open_session(proto, threads=threads, settings=settings)
        original = open_session(source.model, threads=threads)
        got = [run_session(session, feed) for feed in feeds]
        wanted = [run_session(original, feed) for feed in feeds]
    except (ModelError, onnx.checker.ValidationError) as error:
        what = error.what if isinstance(error, ModelError) else str(error).strip().splitlines()[0]
        raise VerificationError(f"the emitted model does not run: {what}", where=getattr(error, "where", "")) from error
    for name, value in ((n, v) for outputs in got for n, v in outputs.items()):
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            raise VerificationError("an output of the emitted model is not finite", where=f"output '{name}'", hint="try another --method")
    parity, reference = plan_parity(canonical, proto, plan, feeds, got)
    _check_constants({o.name for o in source.outputs} - {str(v.name) for v in canonical.graph.outputs}, wanted, got)
    floats = dict.fromkeys(o.name for o in source.outputs if np.issubdtype(o.dtype, np.floating))
    qualities = tuple(_quality(name, wanted, got) for name in floats)
    if parity_is_broken(parity, min((q.sqnr_db for q in qualities), default=_EXACT_DB)):
        raise VerificationError(
            f"the emitted model does not compute what was planned: {parity:.1f} dB between them",
            where=f"compared with {reference}",
            hint="report this; --exclude the operators that the runtime gets wrong to go on",
        )
    with temporary_folder(2 * proto.ByteSize()) as folder:
        census = take_census(proto, plan, offers, feeds[0], settings, folder)
    return Verdict(qualities, parity, reference, census, len(feeds))


def parity_is_broken(parity_db: float, quality_db: float) -> bool:
    """Tell a defect from chaos.

    A defect is error that the plan does not have: it shows against the plan as much as against float. What a few moved
    codes do in a chaotic network stays smaller than what quantization itself did.

    Args:
        parity_db: emitted model against the simulation of its plan.
        quality_db: emitted model against float.
    """
    # what is no number is neither
    return not (parity_db >= LEAST_PARITY_DB or parity_db >= quality_db + CHAOS_MARGIN_DB)


def _check_interface(source: Source, proto: onnx.ModelProto) -> None:
    def signature(values: Any) -> list[tuple[str, int, list[int | str]]]:
        return [(v.name, v.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]) for v in values]

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


def plan_parity(
    planned: ir.Model, proto: onnx.ModelProto, plan: Plan, feeds: Sequence[Feed], got: Sequence[Mapping[str, npt.NDArray[Any]]]
) -> tuple[float, str]:
    """How close an emitted model is to its plan, in dB, of the output that agrees least; and what stands for the plan.

    Args:
        planned: canonical model with the plan's folds, grids that are not uniform, and levels.
        proto: the emitted model.
        plan: what it was emitted from.
        feeds: samples, of which the first four count.
        got: what the emitted model answered to them.
    """
    names = [str(v.name) for v in planned.graph.outputs if is_float_output(v)]
    if not names:
        return _EXACT_DB, "nothing, as the model has no float output"
    kernels = runtime_kernels()
    try:
        expected: list[Mapping[str, npt.NDArray[Any]]] = [simulate(planned, plan, feed, kernels) for feed in feeds[:PARITY_SAMPLES]]
        reference = "a simulation of the plan"
    except UnknownOperatorError as error:
        plain = open_session(proto, optimise=False)
        expected = [run_session(plain, feed) for feed in feeds[:PARITY_SAMPLES]]
        reference = f"the same model without the runtime's fusions (the simulation lacks {error})"
    pairs = {n: [np.concatenate([o[n].reshape(-1) for o in side[: len(expected)]]) for side in (expected, got)] for n in names}
    # all together, for outputs that are zero throughout; and each one, for those that are small beside others
    together = [np.concatenate([pair[side] for pair in pairs.values()]) for side in (0, 1)]
    judged = [together, *(pair for pair in pairs.values() if pair[0].any())]
    return min(sqnr(a, b) for a, b in judged), reference


def _quality(name: str, wanted: Sequence[Mapping[str, npt.NDArray[Any]]], got: Sequence[Mapping[str, npt.NDArray[Any]]]) -> OutputQuality:
    reference = np.concatenate([w[name].reshape(-1) for w in wanted])
    value = np.concatenate([g[name].reshape(-1) for g in got])
    agreement = None
    shape = wanted[0][name].shape
    if len(shape) in (2, 3) and shape[-1] >= 2:
        same = [w[name].argmax(-1) == g[name].argmax(-1) for w, g in zip(wanted, got, strict=True)]
        agreement = float(np.mean(np.concatenate([s.reshape(-1) for s in same])))
    return OutputQuality(name, sqnr(reference, value), agreement)
