"""A network that was really trained: its input, and how its answers are judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Outputs", "Sample", "Task", "drawn", "float_model"]

Outputs = Mapping[str, npt.NDArray[Any]]
"""Of a network, by name."""


@dataclass(frozen=True)
class Sample:
    """One input and what is known of it.

    Attributes:
        name: of the picture.
        value: what the network reads, float32 without the batch axis.
        truth: label, person, picture or boxes, as the task wants it; None for what the float network says.
        group: what stands or falls with it when standard errors are estimated.
    """

    name: str
    value: npt.NDArray[Any]
    truth: Any
    group: str


@dataclass(frozen=True)
class Task:
    """One network and its images.

    Attributes:
        name: short.
        model: the file of the float network under the data folder; with ``made``, what it is called.
        input: name of the network's input.
        figure: what the main figure is, with its unit.
        note: what a reader of the figures has to know.
        samples: images to judge on, given the data folder and names that were used for calibration; in the order of their names.
        calibration: arrays [n, ...] to calibrate on and the names of their pictures, given the data folder and the number of the choice.
        reduced: what is kept of the float32 outputs for one sample.
        figures: of what was kept of some samples, and what is known of them; the main figure first.
        made: the float network of this project, given a folder to write it to.
    """

    name: str
    model: str
    input: str
    figure: str
    note: str
    samples: Callable[[Path, frozenset[str]], Iterator[Sample]]
    calibration: Callable[[Path, int], tuple[npt.NDArray[Any], frozenset[str]]]
    reduced: Callable[[Outputs, Any], Any]
    figures: Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]
    made: Callable[[Path], Path] | None = None


def float_model(task: Task, data: Path, folder: Path) -> Path:
    """The float network, from the data folder, or made in another one.

    Raises:
        UsageError: it is made of a file that is not there.
    """
    return data / task.model if task.made is None else task.made(folder)


def drawn(names: Sequence[str], choice: int, count: int) -> frozenset[str]:
    """Some of the names, the same for the same number of the choice."""
    places = np.random.default_rng(choice).permutation(len(names))[:count]
    return frozenset(names[place] for place in places)
