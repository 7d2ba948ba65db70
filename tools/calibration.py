"""Samples for a model, prepared as its metadata says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converter.calibration.input_shapes import calibration_shapes
from converter.calibration.preprocess import parse_preprocess
from converter.calibration.samples import load_samples
from converter.load.metadata import PREPROCESS
from converter.load.model import Source
from converter.runtime.session import Feed

__all__ = ["calibration_feeds"]


def calibration_feeds(source: Source, calib: Path | None, *, count: int, seed: int) -> Sequence[Feed]:
    """So many samples of images or arrays; of built-in synthetic ones without any.

    Raises:
        CalibrationError, UsageError: they cannot be had.
    """
    specs, _ = calibration_shapes(source, {}, calib, 1)
    given = source.metadata.get(PREPROCESS)
    preprocess = None if given is None else parse_preprocess(given)
    return load_samples(calib, specs, count=count, preprocess=preprocess, seed=seed).calibration
