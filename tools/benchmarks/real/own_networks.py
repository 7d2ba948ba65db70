"""Networks that come with this project: the recogniser of the demo, and the checkpoints of the five families."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.calibration.preprocess import apply_preprocess, parse_preprocess
from converter.errors import UsageError
from models.export import Network, build
from models.images import LabelledImages, find_images, labelled_images
from tools.benchmarks.compare.sources import CHECKPOINTS, checkpoint_names, prepare_model
from tools.benchmarks.real.task import Outputs, Sample, Task, drawn
from tools.demo.__main__ import pixels
from tools.demo.recogniser import MEMBER, alphabet, character_accuracy, exact_lines, greedy_decode
from tools.demo.text_lines import render_lines

__all__ = ["checkpoint_tasks", "recogniser_task"]

_ROOT = Path(__file__).parents[3]
_CALIBRATING = 40
_LINES, _TEST_SEED, _CALIBRATION_SEED = 300, 1, 1000
"""Those of the demo."""


def recogniser_task() -> Task:
    """Rendered lines of text, and what is read of them."""
    return Task(
        "recogniser",
        Path(MEMBER).name,
        "x",
        "lines that are read right, %",
        "",
        _lines,
        lambda _, choice: (np.stack([pixels(line) for line in render_lines(_CALIBRATING, _CALIBRATION_SEED + choice)]), frozenset()),
        _text,
        _read_right,
        lambda _: _recogniser(),
    )


def _recogniser() -> Path:
    path = _ROOT / "build/demo" / Path(MEMBER).name
    if not path.is_file():
        raise UsageError("the recogniser is not there", where=path.name, hint="run make demo, which fetches it")
    return path


def _lines(_: Path, __: frozenset[str]) -> Iterator[Sample]:
    characters = alphabet(_recogniser())
    for number, line in enumerate(render_lines(_LINES, _TEST_SEED)):
        yield Sample(f"{number:03}", pixels(line), (line.text, characters), f"{number:03}")


def _text(outputs: Outputs, truth: tuple[str, Sequence[str]]) -> str:
    (probabilities,) = outputs.values()
    (text,) = greedy_decode(probabilities, truth[1])
    return text


def _read_right(answers: Sequence[str], truths: Sequence[tuple[str, Sequence[str]]]) -> dict[str, float]:
    texts = [text for text, _ in truths]
    return {"exact lines": exact_lines(texts, answers), "characters": character_accuracy(texts, answers)}


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
