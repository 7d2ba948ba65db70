"""Whether a device answers as it should: its outputs beside those of this machine, and beside the simulation of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converter.plan.records import Plan
from converter.runtime.session import open_session, run_session
from converter.verify.quality import sqnr
from runtime_tests.emulation.compare import difference
from runtime_tests.emulation.inputs import Samples
from runtime_tests.model_pair import ModelPair, stacked
from runtime_tests.parity import plan_parity_of
from runtime_tests.processes import Predictions, summed

__all__ = ["Answers", "PlanAnswers", "beside", "beside_float", "beside_plan"]


@dataclass(frozen=True)
class PlanAnswers:
    """A device beside a simulation of the plan, over the first samples.

    Attributes:
        parity_db: SQNR of the output that agrees least; 200 is equality.
        float_db: the same of the device's own float model: how far quantization moved it.
        reference: what stands for the plan.
    """

    parity_db: float
    float_db: float
    reference: str


@dataclass(frozen=True)
class Answers:
    """What a model answered on the device.

    Attributes:
        here: beside this machine, with the kernels that the model was made for.
        plan: beside the simulation; None without a plan.
    """

    here: Predictions
    plan: PlanAnswers | None = None


def beside(pair: ModelPair, device: str, outputs: Samples) -> Predictions:
    """The int8 model's outputs on the device, samples along axis 0, beside those on this machine with the target's kernels.

    Raises:
        ModelError: it does not run here.
    """
    session = open_session(pair.path, threads=1, settings=pair.settings)
    return _compared(device, stacked(tuple(run_session(session, feed) for feed in pair.feeds)), outputs)


def beside_float(pair: ModelPair, device: str, outputs: Samples) -> Predictions:
    """The same of the float model."""
    session = open_session(pair.floats.path, threads=1)
    return _compared(device, stacked(tuple(run_session(session, feed) for feed in pair.feeds)), outputs)


def _compared(device: str, wanted: Samples, got: Samples) -> Predictions:
    return summed("this machine", device, [difference(device, "", name, wanted[name], got[name]) for name in wanted])


def beside_plan(pair: ModelPair, plan: Plan, path: Path, floats: Samples, outputs: Samples) -> PlanAnswers:
    """The int8 model's outputs on the device beside what the plan says.

    Args:
        path: of the plan, for messages.
        floats: outputs of the float model on the device, samples along axis 0.
        outputs: of the int8 model.

    Raises:
        UsageError: the plan is not for these models, or cannot be carried out.
        VerificationError: an output is not finite where the simulation's is, or the other way round; or none has numbers.
    """
    runs = [{name: values[place] for name, values in outputs.items()} for place in range(len(pair.feeds))]
    found = plan_parity_of(pair, plan, path, runs)
    moved = [sqnr(floats[name], outputs[name]) for name in outputs if np.issubdtype(outputs[name].dtype, np.floating)]
    return PlanAnswers(found.db, min(moved), found.reference)
