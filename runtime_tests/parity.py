"""Parity: the model as the runtime runs it, fused into integer kernels, against its plan, or against what its file says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.errors import UsageError, VerificationError
from converter.plan.records import Plan
from converter.planning.replay import planned_model
from converter.quantization.bit_widths import BitWidths
from converter.runtime.session import open_session, run_session
from converter.verify.parity import PARITY_SAMPLES, plan_parity
from converter.verify.quality import sqnr
from runtime_tests.model_pair import ModelPair
from runtime_tests.quality import check_finite

__all__ = ["Parity", "check_plan_is_of", "measure_parity", "measure_plan_parity", "plan_parity_of"]

OWN_GRAPH = "its own graph, unfused"


@dataclass(frozen=True)
class Parity:
    """How close the running model is to a reference.

    Attributes:
        db: signal to noise ratio of the output that agrees least; 200 is equality.
        output: which one that is; empty where all of them were looked at together.
        samples: how many were compared.
        reference: what it was compared with.
    """

    db: float
    output: str
    samples: int
    reference: str = OWN_GRAPH


def measure_parity(model_pair: ModelPair) -> Parity:
    """Run the file with all of the runtime's optimisations and with none.

    Without them nothing is fused: every Q and DQ rounds as written, and what is between them runs in float. The plan is
    not needed. A code that rounds the other way, as integer kernels round a scaled sum where float rounds each factor, is
    noise of at most a step; a graph that the runtime fuses and then computes wrongly is not.

    Raises:
        ModelError: the model does not run.
        VerificationError: an output is not finite.
    """
    plain, fused = (_runs(model_pair, optimise) for optimise in (False, True))
    found = {name: sqnr(*(np.stack([run[name] for run in side]) for side in (plain, fused))) for name in fused[0]}
    worst = min(found, key=lambda name: found[name])
    return Parity(found[worst], worst, len(model_pair.feeds))


def measure_plan_parity(model_pair: ModelPair, plan: Plan, path: Path) -> Parity:
    """Compare the running model with a simulation of the plan that it was made from.

    The simulation computes the float model with every grid of the plan applied, in float, and knows nothing of the file.

    Args:
        plan: of the conversion.
        path: where it was read from, for messages.

    Raises:
        UsageError: it is not for these models, or cannot be carried out.
        ModelError: a model does not run.
        VerificationError: an output is not finite.
    """
    return plan_parity_of(model_pair, plan, path, _runs(model_pair, True))


def plan_parity_of(model_pair: ModelPair, plan: Plan, path: Path, runs: Sequence[Mapping[str, npt.NDArray[Any]]]) -> Parity:
    """The same of outputs that are there already, by name for each sample: of a device, for instance.

    Raises:
        UsageError: the plan is not for these models, or cannot be carried out.
        VerificationError: an output is not finite where the simulation's is, or the other way round; or none has numbers.
    """
    model, plan = planned_model(model_pair.floats, plan, model_pair.feeds, path)
    try:
        found = plan_parity(model, model_pair.model, plan, model_pair.feeds, runs)
    except (AssertionError, KeyError, IndexError, ValueError, RuntimeError) as error:  # an edited plan may hold anything
        what = f"the plan cannot be carried out: {type(error).__name__} {next(iter(str(error).splitlines()), '')}".rstrip()
        raise UsageError(what, where=f"--plan-in {path}", hint="give the plan that --plan-out wrote in the same conversion") from error
    if found.db is None:
        raise VerificationError("no output is a floating-point tensor", where=str(model_pair.path), hint="there is nothing to compare")
    return Parity(found.db, "", min(PARITY_SAMPLES, len(model_pair.feeds)), found.reference)


def check_plan_is_of(plan: Plan, model_pair: ModelPair, path: Path) -> None:
    """Refuse a plan whose widths or target are not those that the int8 file names.

    Raises:
        UsageError: says what differs.
    """
    io = "uint8" if model_pair.takes_pixels else "float"
    said = None if model_pair.bits is None else BitWidths(*model_pair.bits)
    for what, of_plan, of_file in (("width", plan.bits, said), ("target", plan.target, model_pair.target), ("io", plan.io, io)):
        if of_file is not None and of_plan != of_file:
            where = f"--plan-in {path}"
            hint = "give the plan that --plan-out wrote in the same conversion"
            raise UsageError(f"the plan's {what} is {of_plan}, that of the model {of_file}", where=where, hint=hint)


def _runs(model_pair: ModelPair, optimise: bool) -> list[Mapping[str, npt.NDArray[Any]]]:
    """Float outputs of every sample."""
    session = open_session(model_pair.model, threads=1, optimise=optimise, settings=model_pair.settings)
    runs: list[Mapping[str, npt.NDArray[Any]]] = []
    for feed in model_pair.feeds:
        outputs = run_session(session, feed)
        runs.append({name: value for name, value in outputs.items() if np.issubdtype(value.dtype, np.floating)})
        for name, value in runs[-1].items():
            check_finite(f"output '{name}'", value)
    return runs
