"""Which ONNX Runtime an emitted file needs, by what ``python -m tools.runtimes`` found; it runs files in every version and checks this."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

__all__ = ["OLDEST_RUNTIME", "opset_of", "required_runtime"]

OLDEST_RUNTIME = "1.17"
"""The oldest version of which anything is known."""

_FIRST_WITH_OPSET: Mapping[int, str] = {21: "1.20", 22: "1.21"}
"""Versions that were the first to run files of an opset; what is not listed runs from :data:`OLDEST_RUNTIME` on.

1.18 and 1.19 know the opset 21, but make a QLinearMatMul(21) of a MatMul, of which they have no kernel.
"""


def required_runtime(model: onnx.ModelProto) -> str:
    """The oldest runtime that computes what a file says, as a requirement of Python packages, such as ``onnxruntime>=1.17``."""
    return f"onnxruntime>={_FIRST_WITH_OPSET.get(opset_of(model), OLDEST_RUNTIME)}"


def opset_of(model: onnx.ModelProto) -> int:
    """The opset of the standard operators that an emitted file is stamped with."""
    return next(int(o.version) for o in model.opset_import if o.domain == "")
