"""What a detector says of one picture, and which of it is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tools.benchmarks.real.networks.scores import Detections, overlap_of, true_detections

__all__ = ["judged_picture", "without_doubles"]

Array = npt.NDArray[Any]

_LEAST_SCORE = 0.001
_OVERLAP = 0.7
_MOST = 300
_SIZE = 640


def judged_picture(output: Array, size: tuple[int, int], labels: Array) -> Detections:
    """Boxes of their best class, without doubles, the 300 best, each held against the objects there are.

    Args:
        output: middle x, middle y, width and height in pixels of the letterboxed picture, and scores of classes; float32 [4 + classes, n].
        size: width and height of the picture before.
        labels: class, middle x, middle y, width and height as parts of that picture; [m, 5].
    """
    scores, classes = output[4:].max(0), output[4:].argmax(0)
    kept = np.flatnonzero(scores > _LEAST_SCORE)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    boxes = corners(output[:4, kept].T.astype(np.float64))
    kept_now = without_doubles(boxes, classes[kept])[:_MOST]
    boxes, found = boxes[kept_now], kept[kept_now]
    factor = _SIZE / max(size)
    width, height = (round(side * factor) for side in size)
    shift = np.array([(_SIZE - width) // 2, (_SIZE - height) // 2, 0, 0])
    objects = corners(labels[:, 1:] * np.array([width, height, width, height]) + shift)
    object_classes = labels[:, 0].astype(int)
    right = true_detections(boxes, classes[found], objects, object_classes)
    return Detections(classes[found], scores[found], right, object_classes)


def corners(boxes: Array) -> Array:
    """Middle, width and height to x0, y0, x1, y1; [n, 4]."""
    half = boxes[:, 2:] / 2.0
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)


def without_doubles(boxes: Array, classes: Array) -> npt.NDArray[np.int64]:
    """Places of boxes that overlap no better one of their class by more than 0.7 (non-maximum suppression); best first as given."""
    kept: list[int] = []
    left = np.arange(len(boxes))
    while len(left) and len(kept) < _MOST:
        first, left = int(left[0]), left[1:]
        kept.append(first)
        overlaps = overlap_of(boxes[first : first + 1], boxes[left])[0]
        left = left[(overlaps <= _OVERLAP) | (classes[left] != classes[first])]
    return np.array(kept, np.int64)
