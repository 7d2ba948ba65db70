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

_FIRST_WITH_UNSIGNED_CODES = "1.19"
"""1.17 and 1.18 got the classes of one trained network wrong whose activations were uint8, and failed on another, with their extended
optimisations; no test network here shows it, so they are not promised for any such file."""

_FIRST_WITH_DIFFERENCES = "1.21"
"""Older ones have no Sub of int8 numbers."""


def required_runtime(model: onnx.ModelProto) -> str:
    """The oldest runtime that computes what a file says, as a requirement of Python packages, such as ``onnxruntime>=1.17``."""
    needed = [OLDEST_RUNTIME, _FIRST_WITH_OPSET.get(opset_of(model), OLDEST_RUNTIME)]
    if _has_unsigned_codes(model):
        needed.append(_FIRST_WITH_UNSIGNED_CODES)
    if _has_differences_of_codes(model):
        needed.append(_FIRST_WITH_DIFFERENCES)
    return f"onnxruntime>={max(needed, key=_numbers)}"


def _has_unsigned_codes(model: onnx.ModelProto) -> bool:
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return any(n.op_type == "QuantizeLinear" and kinds.get(n.input[2]) == onnx.TensorProto.UINT8 for n in model.graph.node)


def _has_differences_of_codes(model: onnx.ModelProto) -> bool:
    codes = set[str]()
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" or (node.op_type != "DequantizeLinear" and node.input and node.input[0] in codes):
            codes.update(node.output)
    return any(node.op_type == "Sub" and node.input[0] in codes for node in model.graph.node)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def opset_of(model: onnx.ModelProto) -> int:
    """The opset of the standard operators that an emitted file is stamped with."""
    return next(int(o.version) for o in model.opset_import if o.domain == "")
