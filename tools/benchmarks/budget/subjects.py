"""Networks that are converted within an accuracy budget: those of :mod:`tools.benchmarks.real`, and the recogniser of the demo.

What is chosen by a score is chosen on the images at even places, and told of those at odd ones.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.benchmarks.real.networks.published import PUBLISHED
from tools.benchmarks.real.networks.recogniser import recogniser_task
from tools.benchmarks.real.networks.task import Task
from tools.demo.recogniser import fetch_model

__all__ = ["NETWORKS", "Subject", "subject_of"]

NETWORKS = ("classifier", "face", "recogniser")


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
        return Subject(PUBLISHED[name], data / PUBLISHED[name].model, shlex.join(words))
    path = fetch_model(folder)
    return Subject(recogniser_task(lambda: path), path, shlex.join([sys.executable, "-m", "tools.demo.score", "--part", "even"]))
