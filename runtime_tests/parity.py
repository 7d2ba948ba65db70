"""Parity: the model as the runtime runs it, fused into integer kernels, against what its file says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.runtime import open_session, run_session
from converter.verify import sqnr
from runtime_tests.quality import check_finite
from runtime_tests.subject import Subject

__all__ = ["Parity", "measure_parity"]


@dataclass(frozen=True)
class Parity:
    """How close the running model is to its own graph, computed node by node in float.

    Attributes:
        db: signal to noise ratio of the output that agrees least; 200 is equality.
        output: which one that is.
        samples: how many were compared.
    """

    db: float
    output: str
    samples: int


def measure_parity(subject: Subject) -> Parity:
    """Run the file with all of the runtime's optimisations and with none.

    Without them nothing is fused: every Q and DQ rounds as written, and what is between them runs in float. The plan is
    not needed. A code that rounds the other way, as integer kernels round a scaled sum where float rounds each factor, is
    noise of at most a step; a graph that the runtime fuses and then computes wrongly is not.

    Raises:
        ModelError: the model does not run.
        VerificationError: an output is not finite.
    """
    runs = []
    for optimise in (False, True):
        session = open_session(subject.model, threads=1, optimise=optimise, settings=subject.settings)
        runs.append([run_session(session, feed) for feed in subject.feeds])
    found = {}
    for name, value in runs[0][0].items():
        if np.issubdtype(value.dtype, np.floating):
            plain, fused = (np.stack([outputs[name] for outputs in side]) for side in runs)
            check_finite(f"output '{name}'", fused)
            found[name] = sqnr(plain, fused)
    worst = min(found, key=lambda name: found[name])
    return Parity(found[worst], worst, len(subject.feeds))
