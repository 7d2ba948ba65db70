"""Converted files of one network: for several targets, and for one of them in several opsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from converter.load.files import write_files
from converter.load.model import load
from converter.methods.names import MethodName
from converter.options import Options
from converter.pipeline import calibrate, emit_model, make_plan

__all__ = ["OPSETS", "make_files"]

OPSETS = (20, 21, 22)
"""In which the files of the last target are written, besides the lowest that will do: each needs a newer runtime."""


def make_files(floats: Path, folder: Path, targets: Sequence[str], calib: Path | None, method: MethodName) -> list[Path]:
    """Convert a network without placement by price, so that all that can be integer is.

    Args:
        floats: the float model.
        folder: where the files go.
        targets: by name; what the last one's file holds is written in :data:`OPSETS` too.
        calib: images; None for built-in synthetic ones.
        method: of :data:`converter.planning.registry.METHODS`.

    Raises:
        ConverterError: see :func:`converter.pipeline.convert`.
    """
    source, written = load(floats), {}
    for target in targets:
        calibrated = calibrate(source, Options(calib=calib, target=target, method=method, placement="all"))
        planned = make_plan(calibrated)
        for opset in (None, *(OPSETS if target == targets[-1] else ())):
            model = emit_model(replace(calibrated, options=replace(calibrated.options, opset=opset)), planned)
            path = folder / f"{floats.stem}_{target}_opset{model.opset_import[0].version}.onnx"
            written[path] = model.SerializeToString(deterministic=True)
    write_files(written)
    return list(written)
