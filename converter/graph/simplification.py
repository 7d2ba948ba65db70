"""Simplification by onnxsim: constants and BatchNorm folded, identities and decided branches removed."""

from __future__ import annotations

import onnx
import onnxsim

from converter.errors import ModelError
from converter.graph.shape_inference import without_weights
from converter.graph.silence import silence
from converter.graph.weight_files import folder_of

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

    Large weights of a model that keeps them in files are left as they are, with what is computed from them.

    Raises:
        ModelError: onnxsim fails.
    """
    try:
        with silence():
            simplified = _simplified(model) if folder_of(model) is None else without_weights(_simplified, model)
    except Exception as error:  # C++ below, which raises whatever it likes
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise ModelError(f"onnxsim cannot simplify the model: {first}") from error
    return simplified


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    result: onnx.ModelProto
    result, _ = onnxsim.simplify(model, check_n=0, certify=False, skipped_optimizers=list(_NOT_WANTED))
    return result
