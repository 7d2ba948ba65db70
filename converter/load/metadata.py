"""Keys of the metadata that models are exported with, and that a conversion adds."""

from __future__ import annotations

__all__ = ["BITS", "CALIBRATION", "CLASSES", "METHOD", "PREPROCESS", "REQUIRES", "SEED", "SOURCE", "TARGET", "VERSION"]

PREPROCESS = "bridgequant.preprocess"
"""How images become inputs, as a SPEC of :mod:`converter.calibration.preprocess`."""

CLASSES = "bridgequant.classes"
"""Names of the outputs, as a JSON list."""

VERSION = "bridgequant.version"
"""By which version the model was converted; by this entry a converted model is known."""

METHOD, BITS, TARGET = "bridgequant.method", "bridgequant.bits", "bridgequant.target"
"""As on the command line."""

CALIBRATION, SEED, SOURCE = "bridgequant.calibration", "bridgequant.seed", "bridgequant.source"
"""Digest of the calibration samples, seed, and digest of the float model."""

REQUIRES = "bridgequant.requires"
"""The oldest runtime that computes what the file says, as a requirement of Python packages: ``onnxruntime>=1.17``."""
