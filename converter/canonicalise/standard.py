"""The first rewrites, by well-kept libraries: one opset, constants folded, BatchNorm folded, dead code removed."""

from __future__ import annotations

import contextlib
import io

import onnx
import onnxsim
from onnx import version_converter

from converter.errors import ModelError

__all__ = ["CANONICAL_OPSET", "infer_shapes", "simplify", "to_canonical_opset"]

CANONICAL_OPSET = 20
"""The newest with all the operators wanted (Gelu) and none that ONNX Runtime 1.19 lacks."""


def to_canonical_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert to :data:`CANONICAL_OPSET`; operators that are younger are replaced by their definitions.

    Raises:
        ModelError: the converter does not know how to.
    """
    younger = [
        (schema.domain, schema.name)
        for schema in {n.op_type: _schema(n.op_type) for n in model.graph.node}.values()
        if schema is not None and (_first_version(schema.name) > CANONICAL_OPSET or schema.name == "GroupNormalization")
    ]
    if younger:
        model = onnx.inliner.inline_selected_functions(model, younger, inline_schema_functions=True)
    try:
        converted: onnx.ModelProto = version_converter.convert_version(model, CANONICAL_OPSET)
    except Exception as error:  # the converter is C++ and raises whatever its adapters raise
        first = str(error).strip().splitlines()[-1]
        raise ModelError(
            f"the model cannot be brought to opset {CANONICAL_OPSET}: {first}",
            where="opset conversion",
            hint=f"export the model with opset {CANONICAL_OPSET} or 17",
        ) from error
    leftover = [n.op_type for n in converted.graph.node if _first_version(n.op_type) > CANONICAL_OPSET]
    if leftover:
        raise ModelError(
            f"operator '{leftover[0]}' has no form in opset {CANONICAL_OPSET}",
            where="opset conversion",
            hint="export the model with an older opset",
        )
    return converted


def _schema(op_type: str) -> onnx.defs.OpSchema | None:
    return onnx.defs.get_schema(op_type) if onnx.defs.has(op_type) else None


def _first_version(op_type: str) -> int:
    if not onnx.defs.has(op_type):
        return 0
    version: int = onnx.defs.get_schema(op_type).since_version
    while version > 1 and onnx.defs.has(op_type, max_inclusive_version=version - 1):
        try:
            version = onnx.defs.get_schema(op_type, max_inclusive_version=version - 1).since_version
        except onnx.defs.SchemaError:
            break
    return version


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and BatchNorm, drop identities: onnxsim, its chatter kept off the terminal."""
    with contextlib.redirect_stdout(io.StringIO()):
        simplified, _ = onnxsim.simplify(model, check_n=0, certify=False)
    result: onnx.ModelProto = simplified
    return result


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Element types, and shapes as far as they can be known, for every tensor."""
    result: onnx.ModelProto = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return result
