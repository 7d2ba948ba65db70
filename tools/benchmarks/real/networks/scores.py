"""Scores of tasks, by their definitions: arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "Detections",
    "Verification",
    "decibels",
    "error_of_difference",
    "mean_average_precision",
    "overlap_of",
    "psnr_luma",
    "true_detections",
    "verification",
]

Array = npt.NDArray[np.floating]
Integers = npt.NDArray[np.integer]

_RECALLS = np.linspace(0.0, 1.0, 101)
"""At which COCO reads precision."""

_FALSE_ACCEPTS = 1e-3
_GROUPS = 20


@dataclass(frozen=True)
class Verification:
    """How well embeddings tell people apart, in percent.

    Attributes:
        nearest: embeddings whose nearest other one is of the same person.
        auc: pairs of one person and pairs of two that lie in the right order.
        tar: pairs of one person that are accepted where one in a thousand pairs of two people is.
    """

    nearest: float
    auc: float
    tar: float


@dataclass(frozen=True)
class Detections:
    """What a detector found in one picture, the most certain first, and what there is.

    Attributes:
        classes: of the boxes found, integers [n].
        scores: of these, [n].
        right: whether each is one of the objects, bool [n].
        objects: class of each object that there is, integers [m].
    """

    classes: Integers
    scores: Array
    right: npt.NDArray[np.bool_]
    objects: Integers


def verification(embeddings: Array, people: Integers) -> Verification:
    """Compare all embeddings with each other by the cosine.

    Args:
        embeddings: [n, d].
        people: who each is of, [n].
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    close = unit @ unit.T
    alike = people[:, None] == people[None, :]
    pairs = np.triu_indices(len(people), 1)
    same, other = close[pairs][alike[pairs]], close[pairs][~alike[pairs]]
    np.fill_diagonal(close, -np.inf)
    nearest = people[close.argmax(1)] == people
    # how many pairs of two people lie below each pair of one, and half of those at the same place
    ordered = np.sort(other)
    below = 0.5 * (np.searchsorted(ordered, same, "left") + np.searchsorted(ordered, same, "right"))
    threshold = ordered[::-1][int(len(other) * _FALSE_ACCEPTS)]
    return Verification(100.0 * float(nearest.mean()), 100.0 * float(below.mean() / len(other)), 100.0 * float((same > threshold).mean()))


def psnr_luma(wanted: Array, got: Array, border: int) -> float:
    """Peak signal-to-noise ratio in dB of the luma of ITU-R BT.601 (16 to 235), as papers on super-resolution have it.

    Args:
        wanted: colours from 0 to 1, [3, height, width].
        got: the same; what is beyond 0 and 1 is cut off.
        border: pixels that do not count, on each side.
    """
    weights = np.array([65.481, 128.553, 24.966]) / 255.0
    inner = slice(border, -border or None)
    lumas = [np.tensordot(weights, np.clip(x, 0.0, 1.0).astype(np.float64), 1)[inner, inner] for x in (wanted, got)]
    return float(-10.0 * np.log10(max(float(np.square(lumas[0] - lumas[1]).mean()), 1e-20)))


def true_detections(
    boxes: Array, classes: Integers, objects: Array, object_classes: Integers, overlap: float = 0.5
) -> npt.NDArray[np.bool_]:
    """Which boxes are right: each takes the free object of its class with which it overlaps most, if that is enough.

    Args:
        boxes: x0, y0, x1, y1, the most certain first, [n, 4].
        classes: [n].
        objects: x0, y0, x1, y1, [m, 4].
        object_classes: [m].
        overlap: least intersection over union.
    """
    right = np.zeros(len(boxes), bool)
    if not len(objects):
        return right
    overlaps = overlap_of(boxes, objects)
    overlaps[classes[:, None] != object_classes[None, :]] = 0.0
    for place in range(len(boxes)):
        best = int(overlaps[place].argmax())
        if overlaps[place, best] >= overlap:
            right[place] = True
            overlaps[:, best] = 0.0
    return right


def overlap_of(one: Array, other: Array) -> npt.NDArray[np.float64]:
    """Intersection over union of all pairs of boxes, [n, 4] and [m, 4] to [n, m]."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.prod(np.clip(high - low, 0.0, None), -1, dtype=np.float64)
    areas = [np.prod(x[:, 2:] - x[:, :2], -1, dtype=np.float64) for x in (one, other)]
    overlaps: npt.NDArray[np.float64] = common / np.maximum(areas[0][:, None] + areas[1][None, :] - common, 1e-12)
    return overlaps


def mean_average_precision(found: Sequence[Detections]) -> float:
    """Mean over the classes that there are of the area under precision by recall, read at 101 recalls as COCO does; percent."""
    classes, scores = (np.concatenate([getattr(f, name) for f in found]) for name in ("classes", "scores"))
    right, objects = np.concatenate([f.right for f in found]), np.concatenate([f.objects for f in found])
    return 100.0 * float(
        np.mean([_average_precision(scores[classes == c], right[classes == c], int((objects == c).sum())) for c in np.unique(objects)])
    )


def _average_precision(scores: Array, right: npt.NDArray[np.bool_], objects: int) -> float:
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")])
    if not len(hits):
        return 0.0
    recall, precision = hits / objects, hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # the best with at least so much recall
    places = np.searchsorted(recall, _RECALLS, "left")
    return float(np.where(places < len(best), best[np.minimum(places, len(best) - 1)], 0.0).mean())


def decibels(power: float, noise: float) -> float:
    """Signal to quantization noise ratio of sums of squares, at most 200 dB."""
    return 200.0 if noise == 0.0 else float(np.clip(10.0 * np.log10(max(power, 1e-300) / noise), -200.0, 200.0))


def error_of_difference(one: Callable[[Integers], float], other: Callable[[Integers], float], groups: Integers) -> float:
    """Standard error of the difference of two figures that are measured on the same samples.

    By leaving out one group of samples after the other (the delete-a-group jackknife; Kott, Journal of Official Statistics 17, 2001).

    Args:
        one: a figure of the samples at these places.
        other: the same, of another model.
        groups: of each sample: which stand or fall together, such as pictures of one person.
    """
    names = np.unique(groups)
    count = min(_GROUPS, len(names))
    part = np.searchsorted(names, groups) % count
    kept = [np.flatnonzero(part != left_out) for left_out in range(count)]
    differences = np.array([other(places) - one(places) for places in kept])
    return float(np.sqrt((count - 1) / count * np.square(differences - differences.mean()).sum()))
