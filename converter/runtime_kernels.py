"""Float operators by the runtime's own kernels, for a simulation that agrees with it to the last bit.

Two implementations of LayerNorm or Softmax differ in the last bits. In front of a rounding step that is enough to move
a few codes, and deep networks amplify a moved code. A simulation that takes these operators from the runtime and does
the rest itself shows differences only where the integer arithmetic differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch

from converter import torch_ops
from converter.canonicalise.standard import CANONICAL_OPSET
from converter.runtime import open_session

__all__ = ["FloatKernel", "runtime_kernels"]

FloatKernel = Callable[[str, Sequence[Any], Mapping[str, Any]], list[torch.Tensor]]
"""Runs one operator: (type, inputs as tensors or None, attributes) to outputs."""

_IR_VERSION = 9
_INEXACT = frozenset(
    [
        "AveragePool",
        "Conv",
        "Erf",
        "Exp",
        "Gelu",
        "Gemm",
        "GlobalAveragePool",
        "HardSigmoid",
        "HardSwish",
        "InstanceNormalization",
        "LayerNormalization",
        "Log",
        "MatMul",
        "Pow",
        "ReduceMean",
        "ReduceSum",
        "Sigmoid",
        "Softmax",
        "Sqrt",
        "Tanh",
    ]
)
"""Operators on which two correct implementations may differ in the last bits."""


_CONSTANT_OPERANDS = frozenset(["Conv"])
"""Operators whose kernel depends on whether their weights are constants, which the runtime rearranges beforehand."""


def runtime_kernels() -> FloatKernel:
    """A kernel runner that takes inexact operators from ONNX Runtime and all others from torch."""
    sessions: dict[str, Any] = {}

    def run(op_type: str, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> list[torch.Tensor]:
        if op_type not in _INEXACT or any(x is not None and x.dtype != torch.float32 for x in inputs[:1]):
            return torch_ops.apply(op_type, inputs, attributes)
        arrays = [None if x is None else np.ascontiguousarray(x.numpy()) for x in inputs]
        fixed = arrays[1:] if op_type in _CONSTANT_OPERANDS else []
        contents = [None if a is None else hashlib.sha256(a.tobytes()).hexdigest() for a in fixed]
        key = repr((op_type, sorted(attributes.items()), [None if a is None else (a.shape, a.dtype.str) for a in arrays], contents))
        if key not in sessions:
            sessions[key] = open_session(_one_node(op_type, arrays, attributes, len(arrays) - len(fixed)), threads=1)
        feed = {f"x{i}": a for i, a in enumerate(arrays[: len(arrays) - len(fixed)]) if a is not None}
        return [torch.from_numpy(y) for y in sessions[key].run(None, feed)]

    return run


def _one_node(op_type: str, arrays: Sequence[Any], attributes: Mapping[str, Any], fed: int) -> onnx.ModelProto:
    """A model of one operator whose first inputs are fed and whose others are constants."""
    names = ["" if a is None else f"x{i}" for i, a in enumerate(arrays)]
    node = onnx.helper.make_node(op_type, names, ["y"], **attributes)
    named = [(name, a) for name, a in zip(names, arrays, strict=True) if name]
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in named
        if name in names[:fed]
    ]
    constants = [onnx.numpy_helper.from_array(a, name) for name, a in named if name not in names[:fed]]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([node], "one_node", inputs, [output], constants)
    opset = [onnx.helper.make_opsetid("", CANONICAL_OPSET)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)
