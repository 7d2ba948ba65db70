"""How good a model is on the images of a task: the task's own score, and the error of the output.

Both are numbers of which more is better, in percent, so that a drop of either is a budget. The error is told as ``--metric sqnr`` of
``convert.py`` does: 100 less the power of the error in percent of that of the float model's output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from converter.runtime.session import open_session, run_session
from tools.benchmarks.real.answers import chosen
from tools.benchmarks.real.networks.task import Sample, Task
from tools.benchmarks.real.session_settings import settings_for

__all__ = ["METRICS", "SCORE", "SQNR", "Judge", "Outputs", "exactness", "judge_of", "metric_of", "noise_of"]

SCORE, SQNR = "score", "sqnr"
METRICS = (SCORE, SQNR)

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
Answer = Callable[[Array], Outputs]


@dataclass(frozen=True, eq=False)
class Judge:
    """Images and what the float model says to them.

    Attributes:
        task: whose images.
        samples: the images, in the order of their names.
        floats: outputs of the float model for each.
        threads: of the runtime.
    """

    task: Task
    samples: Sequence[Sample]
    floats: Sequence[Outputs]
    threads: int

    def answers(self, model: onnx.ModelProto, places: Sequence[int]) -> list[Outputs]:
        """What a model says to some of the images, by their places, computed exactly as the file says."""
        answer = _opened(model, self.task.input, self.threads)
        return [answer(self.samples[place].value) for place in places]

    def score(self, outputs: Sequence[Outputs], places: Sequence[int]) -> float:
        """The main figure of the task, of outputs for these images."""
        some = [self.samples[place] for place in places]
        kept = [self.task.reduced(out, sample.truth) for out, sample in zip(outputs, some, strict=True)]
        return next(iter(self.task.figures(kept, [sample.truth for sample in some]).values()))


def judge_of(task: Task, data: Path, model: onnx.ModelProto, part: str, threads: int) -> Judge:
    """Run the float model on the images at ``even`` or ``odd`` places, or on ``all``."""
    answer = _opened(model, task.input, threads)
    samples = list(chosen(part, task.samples(data, frozenset())))
    return Judge(task, samples, [answer(sample.value) for sample in samples], threads)


def _opened(model: onnx.ModelProto, input_name: str, threads: int) -> Answer:
    session = open_session(model, threads=threads, settings=settings_for(model))
    return lambda value: run_session(session, {input_name: value[None]})


def noise_of(wanted: Outputs, got: Outputs) -> dict[str, tuple[float, float]]:
    """Power of the float model's output and of the error, for each output."""
    return {
        name: (
            float(np.square(value, dtype=np.float64).sum()),
            float(np.square(value.astype(np.float64) - got[name]).sum()),
        )
        for name, value in wanted.items()
    }


def exactness(wanted: Sequence[Outputs], got: Sequence[Outputs]) -> float:
    """100 less the power of the error, in percent of that of the float model's output; of the output that is furthest from float."""
    noises = [noise_of(one, other) for one, other in zip(wanted, got, strict=True)]
    shares = [sum(n[name][1] for n in noises) / sum(n[name][0] for n in noises) for name in noises[0]]
    return 100.0 - 100.0 * max(shares)


def metric_of(judge: Judge, metric: str, outputs: Sequence[Outputs], places: Sequence[int]) -> float:
    """One of :data:`METRICS`, of outputs for the images at some places."""
    if metric == SCORE:
        return judge.score(outputs, places)
    return exactness([judge.floats[place] for place in places], outputs)
