"""Networks that are converted within an accuracy budget: those of :mod:`tools.benchmarks.real`, and the recogniser of the demo.

What is chosen by a score is chosen on the images at even places, and told of those at odd ones.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.benchmarks.real.tasks import TASKS, Sample, Task
from tools.demo.recogniser import alphabet, exact_lines, fetch_model, greedy_decode
from tools.demo.text_lines import CALIBRATION_SEED, TEST_SEED, pixels, render_lines

__all__ = ["NETWORKS", "Subject", "subject_of"]

NETWORKS = ("classifier", "face", "recogniser")

_LINES = 300
_CALIBRATION_LINES = 40


@dataclass(frozen=True)
class Subject:
    """One network and its task.

    Attributes:
        task: with labels.
        path: of the float model.
        command: scores a model, whose path comes last, on the images at even places.
    """

    task: Task
    path: Path
    command: str


def subject_of(name: str, data: Path, folder: Path) -> Subject:
    """One of :data:`NETWORKS`.

    Args:
        name: which.
        data: folder of really trained networks and their images; the recogniser needs none.
        folder: where the recogniser is kept, which is fetched if it is not there.

    Raises:
        ConverterError: the recogniser cannot be fetched.
    """
    if name != "recogniser":
        words = [sys.executable, "-m", "tools.benchmarks.real.score", name, "--data", str(data), "--part", "even"]
        return Subject(TASKS[name], data / TASKS[name].model, shlex.join(words))
    path = fetch_model(folder)
    return Subject(_recogniser(path), path, shlex.join([sys.executable, "-m", "tools.demo.score", "--part", "even"]))


def _recogniser(path: Path) -> Task:
    reduced = partial(_text, letters=alphabet(path))
    return Task("recogniser", path.name, "x", "lines read right, %", "", _lines, _calibration, reduced, _read_right)


def _lines(_: Path, __: frozenset[str]) -> Iterator[Sample]:
    for place, line in enumerate(render_lines(_LINES, TEST_SEED)):
        yield Sample(f"{place:03d}", pixels(line), line.text, str(place))


def _calibration(_: Path, __: int) -> tuple[npt.NDArray[Any], frozenset[str]]:
    return np.stack([pixels(line) for line in render_lines(_CALIBRATION_LINES, CALIBRATION_SEED)]), frozenset()


def _text(outputs: Mapping[str, npt.NDArray[Any]], _: Any, letters: Sequence[str]) -> str:
    (probabilities,) = outputs.values()
    return greedy_decode(probabilities, letters)[0]


def _read_right(texts: Sequence[Any], truths: Sequence[Any]) -> dict[str, float]:
    return {"lines": exact_lines(truths, texts)}
