"""Quality: top-1 accuracy where there are labels; agreement with float and signal to noise ratio everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.errors import UsageError, VerificationError
from converter.load.metadata import class_names
from converter.runtime.session import open_session, run_session
from converter.verify.quality import sqnr
from models.evaluate import answers_of, open_classifier, output_indices
from models.images import LabelledImages, find_images
from runtime_tests.model_pair import ModelPair

__all__ = ["Accuracy", "Closeness", "check_finite", "labels_of", "measure_accuracy", "measure_closeness"]

_BATCH = 32
_UNKNOWN_PREPROCESSING = "give --preprocess, such as 'imagenet;resize=crop'"


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy of both models on the same labelled images.

    Attributes:
        images: how many.
        float_top1: in percent.
        int8_top1: in percent.
    """

    images: int
    float_top1: float
    int8_top1: float

    @property
    def drop(self) -> float:
        """What is lost, in percentage points."""
        return self.float_top1 - self.int8_top1


@dataclass(frozen=True)
class Closeness:
    """How close the int8 model is to float.

    Attributes:
        samples: how many were compared.
        source: where they come from.
        sqnr_db: of the output that is worst, over all samples.
        agreement: share of the rows of class scores whose highest one is at the same place, in percent; None without such outputs.
    """

    samples: int
    source: str
    sqnr_db: float
    agreement: float | None


def labels_of(data: Path | None, limit: int | None) -> LabelledImages | None:
    """The labelled images at a path, at most ``limit`` of them; None if what lies there has no labels, or but one."""
    if data is None or not (data.is_dir() or data.suffix.lower() == ".zip"):
        return None
    try:
        found = find_images(data)
    except (ValueError, OSError):
        return None
    if len(found.classes) < 2:
        return None
    return found.take(limit) if limit else found


def measure_accuracy(model_pair: ModelPair, data: LabelledImages, *, threads: int = 1) -> tuple[Accuracy, Closeness]:
    """Classify every image with both models, the int8 one with the kernels of its target.

    Raises:
        UsageError: it is not known how to prepare the images, or the classes are not the model's.
        ModelError: the models do not take pictures.
        CalibrationError: an image cannot be read.
        VerificationError: a score is not a number.
    """
    if model_pair.preprocess is None:
        raise UsageError("the model does not say how its pictures are prepared", where=str(model_pair.path), hint=_UNKNOWN_PREPROCESSING)
    height, width = next(iter(model_pair.feeds[0].values())).shape[2:]
    size = height if height == width else None
    scores = []
    for path, exact in ((model_pair.floats.path, False), (model_pair.path, bool(model_pair.settings))):
        classifier = open_classifier(path, exact=exact, threads=threads, size=size)
        scores.append(np.concatenate(list(answers_of(classifier, data, model_pair.preprocess, batch=_BATCH))))
        check_finite("scores", scores[-1])
    labels = output_indices(data, scores[0].shape[1], class_names(model_pair.floats.metadata))[list(data.labels)]
    wanted, got = (values.argmax(axis=1) for values in scores)
    accuracy = Accuracy(len(data), *(float(100 * np.mean(choice == labels)) for choice in (wanted, got)))
    ratios = [sqnr(*scores), *_ratios_of_others(model_pair)]
    return accuracy, Closeness(len(data), data.source.name, min(ratios), float(100 * np.mean(wanted == got)))


def _ratios_of_others(model_pair: ModelPair) -> list[float]:
    """SQNR on the samples of all outputs but the first, of which the labels say nothing."""
    if len(model_pair.model.graph.output) == 1:
        return []
    return [sqnr(*pair) for _, pair in _compared(model_pair)[1:]]


def measure_closeness(model_pair: ModelPair) -> Closeness:
    """Compare the models' outputs on the samples.

    Raises:
        ModelError: one does not run.
        VerificationError: an output is not finite.
    """
    ratios, same = [], []
    for _, (wanted, got) in _compared(model_pair):
        ratios.append(sqnr(wanted, got))
        if wanted.ndim in (3, 4) and wanted.shape[-1] > 1:  # [samples, N, classes] or [samples, N, positions, classes]
            same.append((wanted.argmax(-1) == got.argmax(-1)).reshape(-1))
    if not ratios:
        raise VerificationError("no output is a floating-point tensor", where=str(model_pair.path), hint="there is nothing to compare")
    agreement = float(100 * np.mean(np.concatenate(same))) if same else None
    return Closeness(len(model_pair.feeds), model_pair.samples, min(ratios), agreement)


def _compared(model_pair: ModelPair) -> list[tuple[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]]:
    """Name, float and int8 values of each output of numbers, [samples, ...] each.

    Raises:
        ModelError: a model does not run.
        VerificationError: a value is not finite.
    """
    sessions = (
        open_session(model_pair.floats.model, threads=1),
        open_session(model_pair.model, threads=1, settings=model_pair.settings),
    )
    outputs = [[run_session(session, feed) for feed in model_pair.feeds] for session in sessions]
    found = []
    for name, first in outputs[0][0].items():
        if np.issubdtype(first.dtype, np.floating):
            wanted, got = (np.stack([values[name] for values in side]) for side in outputs)
            check_finite(f"output '{name}'", got)
            found.append((name, (wanted, got)))
    return found


def check_finite(what: str, values: npt.NDArray[Any]) -> None:
    """Refuse outputs that are no numbers.

    Raises:
        VerificationError: says which output.
    """
    if not np.isfinite(values).all():
        raise VerificationError("the int8 model gives numbers that are not finite", where=what, hint="convert it with another --method")
