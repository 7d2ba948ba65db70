"""Simplification by onnxsim: constants and BatchNorm folded, identities and decided branches removed."""

from __future__ import annotations

import onnx
import onnxsim

from converter.errors import ModelError
from converter.graph.silence import silence

__all__ = ["simplify"]

_NOT_WANTED = (
    # operators that the canonical opset does not have
    "fuse_attention",
    "fuse_gqa",
    "fuse_rms_norm",
    "fuse_rope",
    # what the project's own rewrites do without renaming tensors
    "fuse_gelu",
    "fuse_layer_norm",
    "fuse_mul_into_conv",
    "fuse_preceding_mul_into_conv",
    # three layers with a bias each become one without, and three additions
    "fuse_qkv",
)
"""Passes of onnxsim that are left out."""


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and BatchNorm, drop identities and the branches that are never taken; nothing is printed.

    Raises:
        ModelError: onnxsim fails.
    """
    try:
        with silence():
            simplified, _ = onnxsim.simplify(model, check_n=0, certify=False, skipped_optimizers=list(_NOT_WANTED))
    except Exception as error:  # C++ below, which raises whatever it likes
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise ModelError(f"onnxsim cannot simplify the model: {first}") from error
    result: onnx.ModelProto = simplified
    return result
