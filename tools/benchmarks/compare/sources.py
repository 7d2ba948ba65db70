"""The float models of a comparison, and the test images as the models want them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converter.calibration.preprocess import apply_preprocess, parse_preprocess
from converter.emit.model_files import model_files
from converter.errors import UsageError
from converter.load.files import write_files
from converter.load.metadata import PREPROCESS
from models.evaluate import open_classifier
from models.export import build, export_model
from models.images import LabelledImages
from tools.benchmarks.stress import stress

__all__ = ["CHECKPOINTS", "STRESSED", "checkpoint_names", "prepare_images", "prepare_model"]

CHECKPOINTS = Path(__file__).parents[3] / "models/checkpoints"
STRESSED = "+stress"
"""Ending of a model's name: the same network with its channels' ranges spread."""


def checkpoint_names() -> list[str]:
    """Networks with a trained checkpoint."""
    return sorted(p.stem for p in CHECKPOINTS.glob("*.safetensors"))


def prepare_model(name: str, folder: Path) -> Path:
    """The float model of that name, made if it is not there yet.

    Args:
        name: a checkpoint, with or without :data:`STRESSED`, or the path of an ONNX file.

    Raises:
        UsageError: there is neither such a checkpoint nor such a file.
    """
    if name.endswith(".onnx"):
        return Path(name)
    path = folder / f"{name}.onnx"
    if path.exists():
        return path
    if name.endswith(STRESSED):
        made = stress(prepare_model(name.removesuffix(STRESSED), folder))
        write_files(model_files(made.model, path))
        return path
    checkpoint = CHECKPOINTS / f"{name}.safetensors"
    if not checkpoint.exists():
        raise UsageError(
            f"there is no checkpoint '{name}'", where="--models", hint=f"choose from {', '.join(checkpoint_names())}, or give an .onnx file"
        )
    write_files({path: export_model(build(name, checkpoint=checkpoint))})
    return path


def prepare_images(models: Sequence[Path], data: LabelledImages, folder: Path) -> dict[Path, Path]:
    """All test images as each model wants them, float32 [N, 3, H, W] in .npy files that models share; the file by model."""
    files = {}
    for model in models:
        classifier = open_classifier(model)
        spec = classifier.metadata.get(PREPROCESS)
        if spec is None:
            raise UsageError("the model does not say how its pictures are prepared", where=str(model), hint="export it with models.export")
        path = folder / f"images_{classifier.height}x{classifier.width}_{spec.translate(str.maketrans(';=,/', '____'))}.npy"
        files[model] = path
        if path.exists() and np.load(path, mmap_mode="r").shape[0] == len(data):
            continue
        preprocess = parse_preprocess(spec)
        part = path.with_suffix(".part")
        array = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=(len(data), 3, classifier.height, classifier.width))
        for number, image in enumerate(data.images()):
            array[number] = apply_preprocess(image, classifier.height, classifier.width, 3, preprocess)
        array.flush()
        part.rename(path)
    return files
