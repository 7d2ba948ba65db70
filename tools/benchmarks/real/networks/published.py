"""Networks that were really trained: their inputs, and how their answers are judged.

The files are not part of this project. What they are, where they come from and how each is scored stands beside them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tools.benchmarks.real.networks.detection import judged_picture
from tools.benchmarks.real.networks.scores import mean_average_precision, psnr_luma, verification
from tools.benchmarks.real.networks.task import Outputs, Sample, Task, drawn

__all__ = ["PUBLISHED"]

Array = npt.NDArray[Any]

_SAMPLE = "imagenet_sample.zip"
_CALIB = "real/cls_calib.zip"
_EVERY_TENTH = 10
_PATCH = 48
_ZOOM = 4
_DRAWN = 40
_DRAWN_FACES = 34
_GREY = (114, 114, 114)


def _pictures(path: Path, wanted: Callable[[str], bool] = lambda _: True) -> Iterator[tuple[str, Image.Image]]:
    with zipfile.ZipFile(path) as pack:
        for name in sorted(n for n in pack.namelist() if PurePosixPath(n).suffix in (".jpg", ".pgm") and wanted(n)):
            yield name, Image.open(io.BytesIO(pack.read(name))).convert("RGB")


def _names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as pack:
        return sorted(n for n in pack.namelist() if PurePosixPath(n).suffix in (".jpg", ".pgm"))


def _channels_first(picture: Image.Image) -> Array:
    return np.asarray(picture, np.float32).transpose(2, 0, 1) / np.float32(255.0)


def cropped(picture: Image.Image, size: int = 224) -> Array:
    """Short side to the size, then the middle; 0 to 1, float32 [3, size, size]."""
    factor = size / min(picture.size)
    width, height = (max(size, round(side * factor)) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    return _channels_first(picture.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size)))


def letterboxed(picture: Image.Image, size: int = 640) -> Array:
    """Long side to the size, grey around; 0 to 1, float32 [3, size, size]."""
    factor = size / max(picture.size)
    width, height = (round(side * factor) for side in picture.size)
    canvas = Image.new("RGB", (size, size), _GREY)
    canvas.paste(picture.resize((width, height), Image.Resampling.BILINEAR), ((size - width) // 2, (size - height) // 2))
    return _channels_first(canvas)


def _road(picture: Image.Image) -> Array:
    mean, spread = (np.array(v, np.float32).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (_channels_first(picture.resize((640, 360), Image.Resampling.BILINEAR)) - mean) / spread


def _face(picture: Image.Image) -> Array:
    canvas = Image.new("RGB", (112, 112))
    canvas.paste(picture.resize((92, 112), Image.Resampling.BILINEAR), (10, 0))
    return (_channels_first(canvas) - np.float32(0.5)) / np.float32(0.5)


def _photographs(data: Path, choice: int, prepared: Callable[[Image.Image], Array]) -> tuple[Array, frozenset[str]]:
    """The given images, or for another choice as many of the sample."""
    if choice == 0:
        chosen = list(_pictures(data / _CALIB))
    else:
        names = drawn(_names(data / _SAMPLE), choice, _DRAWN)
        chosen = list(_pictures(data / _SAMPLE, names.__contains__))
    return np.stack([prepared(picture) for _, picture in chosen]), frozenset(name for name, _ in chosen)


def _faces(data: Path, choice: int) -> tuple[Array, frozenset[str]]:
    if choice == 0:
        return np.load(data / "real/face.npz")["face"], frozenset()
    names = drawn(_names(data / "real/orl_faces.zip"), choice, _DRAWN_FACES)
    return np.stack([_face(picture) for _, picture in _pictures(data / "real/orl_faces.zip", names.__contains__)]), names


def _patches(data: Path, choice: int) -> tuple[Array, frozenset[str]]:
    if choice == 0:
        return np.load(data / "real/sr.npz")["lr"], frozenset()
    judged = frozenset(_names(data / _SAMPLE)[::_EVERY_TENTH])
    names = drawn([n for n in _names(data / _SAMPLE) if n not in judged], choice, _DRAWN)
    crops = (_middle(picture) for _, picture in _pictures(data / _SAMPLE, names.__contains__))
    return np.stack([_small(crop) for crop in crops if crop is not None]), names


def _middle(picture: Image.Image) -> Image.Image | None:
    side = _PATCH * _ZOOM
    width, height = picture.size
    left, top = (width - side) // 2, (height - side) // 2
    return picture.crop((left, top, left + side, top + side)) if min(width, height) >= side else None


def _small(picture: Image.Image) -> Array:
    return _channels_first(picture.resize((_PATCH, _PATCH), Image.Resampling.BICUBIC))


def _classified(data: Path, taken: frozenset[str]) -> Iterator[Sample]:
    given = frozenset(_names(data / _CALIB)) | taken  # the given images never count, so that all choices judge on about the same
    for name, picture in _pictures(data / _SAMPLE, lambda n: n not in given):
        yield Sample(name, cropped(picture), int(name[:4]), name)


def _recognised(data: Path, _: frozenset[str]) -> Iterator[Sample]:
    for name, picture in _pictures(data / "real/orl_faces.zip"):
        person = PurePosixPath(name).parent.name
        yield Sample(name, _face(picture), int(person[1:]), person)


def _enlarged(data: Path, _: frozenset[str]) -> Iterator[Sample]:
    judged = frozenset(_names(data / _SAMPLE)[::_EVERY_TENTH])
    for name, picture in _pictures(data / _SAMPLE, judged.__contains__):
        crop = _middle(picture)
        if crop is not None:
            yield Sample(name, _small(crop), _channels_first(crop), name)


def _labels(text: str) -> Array:
    """Lines of class, middle, width and height as parts of the picture; float64 [n, 5]."""
    return np.array([line.split() for line in text.splitlines()], np.float64).reshape(-1, 5)


def _found(data: Path, _: frozenset[str]) -> Iterator[Sample]:
    path = data / "real/coco128.zip"
    with zipfile.ZipFile(path) as pack:
        entries = set(pack.namelist())
        for name, picture in _pictures(path):
            labels = name.replace("images/", "labels/", 1).replace(".jpg", ".txt")
            truth = _labels(pack.read(labels).decode()) if labels in entries else _labels("")
            yield Sample(name, letterboxed(picture), (picture.size, truth), name)


def _roads(data: Path, _: frozenset[str]) -> Iterator[Sample]:
    for name, picture in _pictures(data / "real/coco128.zip"):
        yield Sample(name, _road(picture), None, name)


def _top1(answers: Sequence[Any], truths: Sequence[Any]) -> dict[str, float]:
    return {"top-1": 100.0 * float(np.mean(np.equal(answers, truths)))}


def _verified(answers: Sequence[Any], truths: Sequence[Any]) -> dict[str, float]:
    found = verification(np.stack(answers), np.asarray(truths))
    return {"TAR": found.tar, "nearest": found.nearest, "AUC": found.auc}


def _mean_psnr(answers: Sequence[Any], _: Sequence[Any]) -> dict[str, float]:
    return {"PSNR": float(np.mean(answers))}


def _map50(answers: Sequence[Any], _: Sequence[Any]) -> dict[str, float]:
    return {"mAP50": mean_average_precision(answers)}


def _lanes(outputs: Outputs, _: Any) -> Array:
    """The probability of a lane for each query."""
    scores = outputs["logits"].astype(np.float64)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    shares: Array = powers[..., 1] / powers.sum(-1)
    return shares


def _same_lanes(answers: Sequence[Any], truths: Sequence[Any]) -> dict[str, float]:
    """Of the queries that are lanes in float, those that still are; of all, those with the same answer; lanes of float in a picture."""
    got, wanted = np.stack(answers) > 0.5, np.stack(truths) > 0.5
    kept = 100.0 * float(got[wanted].mean()) if wanted.any() else 100.0
    return {"agreement": kept, "all queries": 100.0 * float((got == wanted).mean()), "lanes a picture": float(wanted.sum() / len(wanted))}


_PER_TENSOR = "its weights were published on an int8 grid per tensor, which flatters the rounding of weights"
_PER_CHANNEL = "its weights were published on an int8 grid per channel, which flatters the rounding of weights"
_LINEAR = "weights of its linear layers were published as int8"

PUBLISHED: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            "classifier",
            "real/yolo11n-cls_224_fp32.onnx",
            "images",
            "top-1, %",
            _PER_TENSOR,
            _classified,
            partial(_photographs, prepared=cropped),
            lambda outputs, _: int(outputs["logits"].argmax()),
            _top1,
        ),
        Task(
            "face",
            "real/edgeface_xs_112_fp32.onnx",
            "face",
            "TAR at FAR 1e-3, %",
            _LINEAR,
            _recognised,
            _faces,
            lambda outputs, _: outputs["emb"].reshape(-1),
            _verified,
        ),
        Task(
            "super-resolution",
            "real/mobilesr_x4_48.onnx",
            "lr",
            "PSNR of luma, dB",
            "",
            _enlarged,
            _patches,
            lambda outputs, truth: psnr_luma(truth, outputs["sr"][0], _ZOOM),
            _mean_psnr,
        ),
        Task(
            "lanes",
            "real/lstr_360x640.onnx",
            "img",
            "lanes of float that are kept, %",
            "there are no labels: the answers are held against those of float",
            _roads,
            partial(_photographs, prepared=_road),
            _lanes,
            _same_lanes,
        ),
        Task(
            "detector",
            "real/yolo11n_fp32.onnx",
            "images",
            "mAP50, %",
            _PER_CHANNEL,
            _found,
            partial(_photographs, prepared=letterboxed),
            lambda outputs, truth: judged_picture(outputs["output0"][0], *truth),
            _map50,
        ),
    )
}
"""Networks that others trained and published, by name."""
