"""Calibration data on disk, and loading them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from converter.calibration.preprocess import parse_preprocess
from converter.calibration.samples import InputSpec, SampleSet, load_samples
from converter.errors import ConverterError

FLOAT = np.dtype(np.float32)

NCHW = InputSpec("x", (None, 3, 6, 8), FLOAT)

VECTOR = InputSpec("v", (1, 2), FLOAT)


def load(path: Path | None, *inputs: InputSpec, count: int = 4, spec: str | None = None, seed: int = 0) -> SampleSet:
    preprocess = parse_preprocess(spec) if spec else None
    return load_samples(path, inputs, count=count, preprocess=preprocess, seed=seed)


def refused(path: Path | None, *inputs: InputSpec, count: int = 4) -> ConverterError:
    with pytest.raises(ConverterError) as caught:
        load(path, *inputs, count=count)
    assert caught.value.hint or "nothing to calibrate" in caught.value.what
    assert len(str(caught.value).splitlines()) <= 3
    return caught.value


def write_images(folder: Path, count: int, classes: int = 1) -> Path:
    for index in range(count):
        file = folder / f"class{index % classes}" / f"{index:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (index, 255 - index, 7)).save(file)
    return folder


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*"), reverse=True):
            archive.write(file, file.relative_to(folder))
    return path


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path
