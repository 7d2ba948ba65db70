"""A matrix of one small network and a few pictures."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from converter.testing.models import hybrid_model

__all__ = ["pictures", "small_matrix"]


def pictures(path: Path, count: int) -> Path:
    """A zip of coloured noise, in ten classes."""
    generator = np.random.default_rng(count)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            stream = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "png")
            archive.writestr(f"{number % 10}/{number}.png", stream.getvalue())
    return path


def small_matrix(folder: Path, *more: str) -> list[str]:
    """Arguments that compare two methods on one small network, on 20 pictures."""
    model = folder / "small.onnx"
    onnx.save(hybrid_model(metadata={"bridgequant.preprocess": "unit;resize=stretch"}), model)
    arguments = ["--models", str(model), "--methods", "ort-static", "minmax", "--bits", "W8A8", "--samples", "4", "--jobs", "1"]
    arguments += ["--data", str(pictures(folder / "test.zip", 20)), "--calib", str(pictures(folder / "train.zip", 8))]
    return [*arguments, "--out", str(folder / "out"), "--placement", "all", *more]
