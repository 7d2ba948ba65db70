"""The checkpoints of the five families, which come with this project."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.calibration.preprocess import apply_preprocess, parse_preprocess
from models.export import Network, build
from models.images import LabelledImages, find_images, labelled_images
from tools.benchmarks.compare.sources import CHECKPOINTS, checkpoint_names, prepare_model
from tools.benchmarks.real.networks.task import Sample, Task, drawn

__all__ = ["checkpoint_tasks"]

_CALIBRATING = 40


def checkpoint_tasks() -> list[Task]:
    """Small pictures in ten classes (CIFAR-10), one network of each family."""
    return [
        Task(
            name,
            f"{name}.onnx",
            "image",
            "top-1, %",
            "trained here, on small pictures",
            partial(_small_pictures, name),
            partial(_training_pictures, name),
            lambda outputs, _: int(next(iter(outputs.values())).argmax()),
            _top1,
            partial(prepare_model, name),
        )
        for name in checkpoint_names()
    ]


def _network(name: str) -> Network:
    return build(name, checkpoint=CHECKPOINTS / f"{name}.safetensors")


def _prepared(network: Network, images: LabelledImages) -> Iterator[npt.NDArray[np.float32]]:
    spec = parse_preprocess(network.preprocess)
    return (apply_preprocess(image, network.size, network.size, 3, spec) for image in images.images())


def _small_pictures(name: str, data: Path, _: frozenset[str]) -> Iterator[Sample]:
    images = labelled_images(data / "cifar10_test.zip")
    for entry, label, array in zip(images.entries, images.labels, _prepared(_network(name), images), strict=True):
        yield Sample(entry, array, label, entry)


def _training_pictures(name: str, data: Path, choice: int) -> tuple[npt.NDArray[Any], frozenset[str]]:
    """None of them is judged, so none is named."""
    images = find_images(data / "cifar10_train.zip")
    names = drawn(images.entries, choice, _CALIBRATING)
    chosen = [images.part(place, place + 1) for place, entry in enumerate(images.entries) if entry in names]
    network = _network(name)
    return np.stack([next(_prepared(network, one)) for one in chosen]), frozenset()


def _top1(answers: Sequence[Any], truths: Sequence[Any]) -> dict[str, float]:
    return {"top-1": 100.0 * float(np.mean(np.equal(answers, truths)))}
