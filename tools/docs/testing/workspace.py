"""A folder in which the commands of the documentation find the files that they name: small stand-ins for a reader's own."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from PIL import Image

from converter.load.metadata import PREPROCESS
from converter.options import Options
from converter.pipeline import convert
from converter.runtime.session import open_session, run_session
from converter.testing.models import hybrid_model
from tools.docs.pages import ROOT

__all__ = ["make_board", "make_workspace"]

_FLOAT = ("model.onnx", "MODEL.onnx", "FLOAT.onnx", "IN.onnx", "float.onnx", "preprocessed.onnx")
_INTEGER = ("model_int8.onnx", "INT8.onnx", "int8.onnx")
_PLANS = ("plan.json", "PLAN.json")
_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SIZE = 32

Picture = npt.NDArray[np.uint8]


def make_workspace(folder: Path) -> None:
    """Fill a folder: float and int8 models, plans, pictures with and without labels, gates, a program that scores, checkpoints."""
    model = hybrid_model(metadata={PREPROCESS: "unit;resize=stretch"})
    pictures = _pictures(40)
    _models(folder, model, pictures)
    _image_folder(folder / "images", [f"{i:02}.png" for i in range(40)], pictures)
    labels = _answers(model, pictures)
    _image_folder(folder / "labelled", [f"{label}/{i:02}.png" for i, label in enumerate(labels)], pictures)
    for name in ("cifar10_train.zip", "cifar10_test.zip"):
        _zipped(folder / name, [f"{_CIFAR[i % 10]}/{i:04}.png" for i in range(40)], pictures)
    np.save(folder / "pictures.npy", np.stack(pictures[:8]).transpose(0, 3, 1, 2))
    make_board(folder)
    (folder / "gates.toml").write_text("min_sqnr_db = 5\nmin_coverage = 10\n")
    (folder / "measure_map.py").write_text("print(50)\n")
    (folder / "models").symlink_to(ROOT / "models")
    trained = folder / "runs" / "mobilevit_xxs"
    trained.mkdir(parents=True)
    (trained / "weights.safetensors").symlink_to(ROOT / "models" / "checkpoints" / "mobilevit_xxs.safetensors")


def make_board(folder: Path) -> None:
    """Write a target file of a reader's own."""
    shutil.copy(ROOT / "converter" / "targets" / "machines" / "arm64.toml", folder / "my-board.toml")


def _models(folder: Path, model: onnx.ModelProto, pictures: Sequence[Picture]) -> None:
    for name in _FLOAT:
        onnx.save(model, folder / name)
    calib = np.stack(pictures).transpose(0, 3, 1, 2)
    convert(model, folder / _INTEGER[0], Options(calib=calib, samples=8), plan_out=folder / _PLANS[0])
    for name in _INTEGER[1:]:
        shutil.copy(folder / _INTEGER[0], folder / name)
    for name in _PLANS[1:]:
        shutil.copy(folder / _PLANS[0], folder / name)


def _pictures(count: int) -> list[Picture]:
    generator = np.random.default_rng(0)
    return [_enlarged(generator.integers(0, 256, (4, 4, 3), np.uint8)) for _ in range(count)]


def _enlarged(small: Picture) -> Picture:
    return np.asarray(Image.fromarray(small).resize((_SIZE, _SIZE), Image.Resampling.BICUBIC))


def _answers(model: onnx.ModelProto, pictures: Sequence[Picture]) -> list[int]:
    """The float model's own, so that it has 100 % and an int8 model can come close."""
    session = open_session(model)
    feeds = ({"image": (picture.transpose(2, 0, 1)[None] / 255).astype(np.float32)} for picture in pictures)
    return [int(run_session(session, feed)["logits"].argmax()) for feed in feeds]


def _image_folder(folder: Path, names: Sequence[str], pictures: Sequence[Picture]) -> None:
    for name, picture in zip(names, pictures, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / name)


def _zipped(path: Path, names: Sequence[str], pictures: Sequence[Picture]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, picture in zip(names, pictures, strict=True):
            with archive.open(name, "w") as stream:
                Image.fromarray(picture).save(stream, "PNG")
