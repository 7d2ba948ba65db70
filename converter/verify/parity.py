"""Parity: an emitted model, as the runtime runs it, against a simulation of the plan that it was emitted from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from converter.errors import VerificationError
from converter.plan.records import Plan
from converter.runtime.session import Feed, open_session, run_session
from converter.torch_backend.ops import UnknownOperatorError
from converter.torch_backend.runtime_kernels import Sessions
from converter.torch_backend.workers import one_thread_each
from converter.verify.quality import Outputs, finite_alike, sqnr
from converter.verify.row_axes import SELECTING, row_axes
from converter.verify.row_matching import Pair, match_rows
from converter.verify.simulation import simulate, simulate_all

__all__ = [
    "CHAOS_MARGIN_DB",
    "LEAST_PARITY_DB",
    "MOST_DIFFERING",
    "PARITY_SAMPLES",
    "Differing",
    "PlanParity",
    "check_finite",
    "integers_are_broken",
    "parity_is_broken",
    "plan_parity",
    "selected_rows",
]

LEAST_PARITY_DB = 30.0
"""Below this, emitted model and plan do not describe the same computation, unless the network is chaotic."""

CHAOS_MARGIN_DB = 6.0
"""In a chaotic network a single moved code changes everything, but the model is still closer to its plan than to float."""

MOST_DIFFERING = 0.01
"""Share of the integers of an output, labels for instance, that moved codes may change; more needs the network to be chaotic."""

PARITY_SAMPLES = 4
"""Samples on which an emitted model is compared with its plan."""

_CHAOS_SHARE = 0.5
"""Half as many labels differ where the error in front of them is half as large, which is the margin of 6 dB."""

_SIMULATION = "a simulation of the plan"

Pairs = Sequence[Mapping[str, Pair]]
"""Outputs by name, for each sample."""


@dataclass(frozen=True)
class Differing:
    """How far integers are from others.

    Attributes:
        count: how many differ.
        total: how many were compared.
        db: SQNR of the integers read as numbers.
    """

    count: int
    total: int
    db: float


@dataclass(frozen=True)
class PlanParity:
    """How close an emitted model is to its plan, over the first samples.

    Attributes:
        db: SQNR of the output of numbers that agrees least; None if no such output holds a value.
        differing: by name of an output of integers, how many of them differ.
        reference: what stands for the plan.
    """

    db: float | None
    differing: Mapping[str, Differing]
    reference: str

    @property
    def agreement(self) -> float | None:
        """Share of equal elements of the output of integers that agrees least; None if there is none."""
        return min((1 - d.count / d.total for d in self.differing.values() if d.total), default=None)


def plan_parity(
    planned: ir.Model,
    proto: onnx.ModelProto,
    plan: Plan,
    feeds: Sequence[Feed],
    got: Sequence[Outputs],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PlanParity:
    """Compare an emitted model with a simulation of its plan.

    Args:
        planned: canonical model with the plan's equalizations, non-uniform quantizers and constant gates.
        plan: what it was emitted from.
        feeds: samples, of which the first four count.
        got: what the emitted model answered to them; outputs that are not there are not compared.
        progress: called with (samples done, samples in all).

    Raises:
        VerificationError: an output is not finite where it is in the simulation, or the other way round.
    """
    sessions: Sessions = {}
    try:
        expected: list[Outputs] = []
        with one_thread_each():  # on a busy machine torch's own threads wait for each other many times as long as they compute
            for feed in feeds[:PARITY_SAMPLES]:
                expected.append(simulate(planned, plan, feed, sessions))
                progress(len(expected), min(len(feeds), PARITY_SAMPLES))
        reference = _SIMULATION
    except UnknownOperatorError as error:
        plain = open_session(proto, optimise=False)
        expected = [run_session(plain, feed) for feed in feeds[:PARITY_SAMPLES]]
        reference = f"the same model without the runtime's fusions (the simulation lacks {error})"
    # what is not computed, constants above all, has no part in a plan
    sides = [({n: e[n] for n in g if n in e}, {n: y for n, y in g.items() if n in e}) for e, g in zip(expected, got, strict=False)]
    pairs, rows = [match_rows(e, g, {}) for e, g in sides], selected_rows(planned, feeds[0])
    if rows and not _is_close(pairs):
        # a moved code may exchange two rows
        pairs, reference = [match_rows(e, g, rows) for e, g in sides], f"{reference}, rows matched"
    check_finite(planned, plan, feeds, pairs)
    return PlanParity(_least_db(pairs), _differing(pairs), reference)


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


def integers_are_broken(differing: Differing, agreement: float) -> bool:
    """The same for an output of integers, such as labels.

    The share of labels that an error changes grows with the error, not with its square. One element alone is no evidence:
    between two answers that are as good, the last bit decides. The codes of a picture may all be one beside the right one,
    and it is the same picture: they count as numbers.

    Args:
        differing: the emitted model against the simulation of its plan.
        agreement: share of equal elements between the emitted model and float.
    """
    share = differing.count / max(differing.total, 1)
    apart = differing.count > 1 and differing.db < LEAST_PARITY_DB
    return apart and share > MOST_DIFFERING and share > _CHAOS_SHARE * (1 - agreement)


def _is_close(pairs: Pairs) -> bool:
    if any(_not_finite(found) for found in pairs):
        return False
    db = _least_db(pairs)
    few = (d.count <= MOST_DIFFERING * d.total for d in _differing(pairs).values())
    return (db is None or db >= LEAST_PARITY_DB) and all(few)


def _least_db(pairs: Pairs) -> float | None:
    """The lowest SQNR of the outputs of numbers; None if they hold no value."""
    names = [n for n, p in pairs[0].items() if np.issubdtype(p.wanted.dtype, np.floating)]
    values = {n: [np.concatenate([side.reshape(-1) for side in sides]) for sides in _sides(pairs, n)] for n in names}
    finite = {n: [side[np.isfinite(a)] for side in (a, b)] for n, (a, b) in values.items()}
    if not any(a.size for a, _ in finite.values()):
        return None
    # all together, for outputs that are zero throughout; and each one, for those that are small beside others
    together = [np.concatenate([pair[side] for pair in finite.values()]) for side in (0, 1)]
    return min(sqnr(a, b) for a, b in [together, *(pair for pair in finite.values() if pair[0].any())])


def _sides(pairs: Pairs, name: str) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]:
    return [p[name].wanted for p in pairs], [p[name].got for p in pairs]


def _differing(pairs: Pairs) -> dict[str, Differing]:
    """Elements that are not the same, of outputs of integers."""
    found = {}
    for name in (n for n, p in pairs[0].items() if not np.issubdtype(p.wanted.dtype, np.floating)):
        equal = [(p[name].wanted == p[name].got) & p[name].paired for p in pairs]
        numbers = sqnr(*(np.concatenate([side.reshape(-1) for side in sides]) for sides in _sides(pairs, name)))
        found[name] = Differing(sum(int((~e).sum()) for e in equal), sum(e.size for e in equal), numbers)
    return found


def _not_finite(pairs: Mapping[str, Pair]) -> str:
    """The first output that is not finite at the same places on both sides, else an empty string."""
    return next((name for name, p in pairs.items() if not finite_alike(p.wanted, p.got)), "")


def selected_rows(model: ir.Model, feed: Feed) -> dict[str, int]:
    """The axis of rows that the network selects, of each output that has one."""
    if not any(node.op_type in SELECTING for node in model.graph):
        return {}
    try:
        values = simulate_all(model, None, feed, {})
    except UnknownOperatorError:
        return {}
    return row_axes(model, {name: value.shape for name, value in values.items()})


def check_finite(planned: ir.Model, plan: Plan, feeds: Sequence[Feed], pairs: Pairs) -> None:
    """Compare where the outputs of the emitted model and of another are not finite.

    Args:
        planned: canonical model, to find the operator that is at fault.
        pairs: outputs of both models, for the first of these samples at least.

    Raises:
        VerificationError: not at the same places, or not with the same sign.
    """
    for feed, found in zip(feeds, pairs, strict=False):
        name = _not_finite(found)
        if name:
            raise _lost_values(planned, plan, feed, name)


def _lost_values(planned: ir.Model, plan: Plan, feed: Feed, name: str) -> VerificationError:
    """Why an output is not finite where another model's is: an operator to which the plan gives numbers that it cannot take, or unknown."""
    place = f"output '{name}'"
    node = _first_not_finite(planned, plan, feed)
    if node is None:
        what = "an output of the emitted model is not finite where the float model's is, or the other way round"
        return VerificationError(what, where=place, hint="try another --method")
    makers = [v.producer() for v in node.inputs if v is not None]
    names = dict.fromkeys(str(n.name) for n in (node, *makers) if n is not None and str(n.name) in plan.ops)
    return VerificationError(
        f"{node.op_type} '{node.name}' gives values that are not finite once its inputs are quantized: 0 divided by 0, for instance",
        where=place,
        hint=" ".join(f"--exclude '{n}'" for n in names),
    )


def _first_not_finite(planned: ir.Model, plan: Plan, feed: Feed) -> ir.Node | None:
    """The first operator that gives NaN or infinity in a simulation of the plan and does not in float."""
    sessions: Sessions = {}
    try:
        exact, rounded = (simulate_all(planned, p, feed, sessions) for p in (None, plan))
    except UnknownOperatorError:
        return None
    for node in planned.graph:
        names = [str(v.name) for v in node.outputs if str(v.name) in rounded]
        if any(_lost(exact[name], rounded[name]) for name in names):
            return node
    return None


def _lost(exact: npt.NDArray[Any], rounded: npt.NDArray[Any]) -> bool:
    if exact.shape != rounded.shape:
        return bool(np.isfinite(exact).all() and not np.isfinite(rounded).all())
    return bool((np.isfinite(exact) & ~np.isfinite(rounded)).any())
