"""A trained hybrid recogniser of text lines that anybody can install, and the numbers that say how well it reads.

The model is the text-line recogniser of PP-OCRv4 (Apache-2.0): convolutions, two attention blocks, input ``x``
[N, 3, 48, W] with pixel values scaled to -1..1, output [N, W/8, 6625] class probabilities for CTC decoding.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from converter.errors import ConverterError, ModelError

__all__ = ["alphabet", "character_accuracy", "edit_distance", "exact_lines", "fetch_model", "greedy_decode"]

PACKAGE = "rapidocr-onnxruntime==1.4.4"
WHEEL = "rapidocr_onnxruntime-1.4.4-py3-none-any.whl"
MEMBER = "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
MODEL_SHA256 = "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b"


def fetch_model(folder: Path) -> Path:
    """Download the recogniser with pip, unless it is there already.

    Args:
        folder: where the wheel and the model are kept; made if missing.

    Returns:
        Path of the model, whose sha256 has been checked.

    Raises:
        ConverterError: pip cannot fetch the wheel.
        ModelError: the wheel does not hold the expected model.
    """
    model = folder / Path(MEMBER).name
    if model.is_file() and _sha256(model.read_bytes()) == MODEL_SHA256:
        return model
    folder.mkdir(parents=True, exist_ok=True)
    if not zipfile.is_zipfile(folder / WHEEL):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", PACKAGE, "-d", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ConverterError(f"pip cannot fetch {PACKAGE}", where=last, hint=f"put {WHEEL} into {folder} by hand")
    with zipfile.ZipFile(folder / WHEEL) as wheel:
        data = wheel.read(MEMBER)
    if _sha256(data) != MODEL_SHA256:
        raise ModelError("the model is not the expected one", where=f"{WHEEL}: sha256 {_sha256(data)}", hint=f"expected {MODEL_SHA256}")
    # A neighbouring file renamed at the end: nobody ever sees half a model.
    part = folder / f"{model.name}.{os.getpid()}.part"
    try:
        part.write_bytes(data)
        part.replace(model)
    finally:
        part.unlink(missing_ok=True)
    return model


def alphabet(model_path: Path) -> list[str]:
    """Read the characters that the model's classes stand for.

    Args:
        model_path: a recogniser with its characters in the metadata entry ``character``, one a line.

    Returns:
        One entry per class: the empty string for the CTC blank, the listed characters, and a space at the end.

    Raises:
        ModelError: the entry is missing.
    """
    model = onnx.load(model_path, load_external_data=False)
    listed = next((entry.value for entry in model.metadata_props if entry.key == "character"), None)
    if listed is None:
        raise ModelError("the model lists no characters", where=f"{model_path}, metadata entry 'character'", hint="use the recogniser")
    return ["", *listed.removesuffix("\n").split("\n"), " "]


def greedy_decode(probabilities: npt.NDArray[Any], alphabet: Sequence[str]) -> list[str]:
    """Read CTC output: the best class of each step, repeats merged, blanks and surrounding spaces dropped.

    Args:
        probabilities: [N, T, C], any monotone score.
        alphabet: C strings; entry 0 is the blank.

    Returns:
        N lines of text.

    Raises:
        ValueError: the number of classes is not the size of the alphabet.
    """
    if probabilities.ndim != 3 or probabilities.shape[2] != len(alphabet):
        raise ValueError(f"expected [N, T, {len(alphabet)}], found {list(probabilities.shape)}")
    best = probabilities.argmax(axis=2)
    starts = np.ones(best.shape, dtype=bool)
    starts[:, 1:] = best[:, 1:] != best[:, :-1]
    kept = [row[start & (row != 0)] for row, start in zip(best, starts, strict=True)]
    # The model takes a wide margin for a space, which says nothing about the text.
    return ["".join(alphabet[index] for index in row).strip(" ") for row in kept]


def edit_distance(first: str, second: str) -> int:
    """Count the insertions, deletions and substitutions that turn one text into the other (Levenshtein)."""
    previous = list(range(len(second) + 1))
    for row, wanted in enumerate(first, start=1):
        current = [row]
        for column, found in enumerate(second, start=1):
            current.append(min(previous[column] + 1, current[column - 1] + 1, previous[column - 1] + (wanted != found)))
        previous = current
    return previous[-1]


def character_accuracy(truths: Sequence[str], readings: Sequence[str]) -> float:
    """Score readings by characters, in percent: 100 * (1 - total edit distance / total characters of the truths).

    It falls below zero when the readings hold more wrong characters than the truths have at all.
    """
    distance = sum(edit_distance(truth, reading) for truth, reading in zip(truths, readings, strict=True))
    return 100.0 * (1.0 - distance / sum(map(len, truths)))


def exact_lines(truths: Sequence[str], readings: Sequence[str]) -> float:
    """Score readings by lines: the percentage that equals its truth to the last character."""
    return 100.0 * sum(truth == reading for truth, reading in zip(truths, readings, strict=True)) / len(truths)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
