"""Session settings under which a machine computes what a file of any tool says."""

from __future__ import annotations

import platform

import onnx

from models.evaluate import exact_setting

__all__ = ["settings_for"]


def settings_for(model: onnx.ModelProto) -> dict[str, str]:
    """Session settings under which this machine computes what the file says, exactly: other processors may saturate or round otherwise."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return {}
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    return {exact_setting(model): "1"} if quantized else {}
