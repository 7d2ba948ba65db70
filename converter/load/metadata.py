"""Keys of the metadata that models are exported with, and that a conversion adds."""

from __future__ import annotations

import json
from collections.abc import Mapping

from converter.errors import ModelError

__all__ = ["BITS", "CALIBRATION", "CLASSES", "IO", "METHOD", "PREPROCESS", "REQUIRES", "SEED", "SOURCE", "TARGET", "VERSION", "class_names"]

PREPROCESS = "bridgequant.preprocess"
"""How images become inputs, as a SPEC of :mod:`converter.calibration.preprocess`."""

CLASSES = "bridgequant.classes"
"""Names of the outputs, as a JSON list."""

IO = "bridgequant.io"
"""What the model takes and gives, as on the command line; there is no entry where it is ``float``."""

VERSION = "bridgequant.version"
"""By which version the model was converted; by this entry a converted model is known."""

METHOD, BITS, TARGET = "bridgequant.method", "bridgequant.bits", "bridgequant.target"
"""As on the command line."""

CALIBRATION, SEED, SOURCE = "bridgequant.calibration", "bridgequant.seed", "bridgequant.source"
"""Digest of the calibration samples, seed, and digest of the float model."""

REQUIRES = "bridgequant.requires"
"""The oldest runtime that computes what the file says, as a requirement of Python packages: ``onnxruntime>=1.17``."""


def class_names(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Names of a model's outputs, in order, as its metadata has them; empty if it does not.

    Raises:
        ModelError: they are no list of names.
    """
    text = metadata.get(CLASSES, "[]")
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        hint = 'export the model again, or write a JSON list such as ["cat", "dog"]'
        raise ModelError(f"the names of the classes are damaged: {text[:40]}", where=f"metadata {CLASSES}", hint=hint)
    return tuple(names)
