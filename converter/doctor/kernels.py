"""Which operators the installed runtime computes in integer, and how exactly: found by running small models, not by looking up versions."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from converter.runtime.session import open_session, run_session
from converter.verify.integer_coverage import profile

__all__ = ["KINDS", "Kernel", "find_kernels", "saturates"]

Array = npt.NDArray[Any]

_OPSET, _IR_VERSION = 20, 9
_STEP = np.float32(1 / 64)
_BIASED = ("Conv", "Gemm")
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Kernel:
    """What became of one kind of operator between a DQ and a Q.

    Attributes:
        kind: of the operator.
        activations: type of its codes.
        ran: kernels that ran in its place, in order, without conversions at the model's ends.
        integer: it ran on codes.
    """

    kind: str
    activations: str
    ran: tuple[str, ...]
    integer: bool


_NodeMaker = tuple[str, Mapping[str, Any], int, tuple[int, ...] | None]
"""Operator, attributes, computed inputs, shape of a constant behind them."""

_IMAGE, _ROWS = (1, 32, 8, 8), (1, 4, 32)

KINDS: Mapping[str, tuple[tuple[int, ...], _NodeMaker]] = MappingProxyType(
    {
        "Conv": (_IMAGE, ("Conv", {}, 1, (32, 32, 1, 1))),
        "Conv depthwise": (_IMAGE, ("Conv", {"group": 32, "pads": [1, 1, 1, 1]}, 1, (32, 1, 3, 3))),
        "MatMul": (_ROWS, ("MatMul", {}, 1, (32, 32))),
        "MatMul of two": ((1, 32, 32), ("MatMul", {}, 2, None)),
        "Gemm": ((4, 32), ("Gemm", {}, 1, (32, 32))),
        "Add": (_IMAGE, ("Add", {}, 2, None)),
        "Mul": (_IMAGE, ("Mul", {}, 2, None)),
        "Sigmoid": (_IMAGE, ("Sigmoid", {}, 1, None)),
        "Softmax": (_ROWS, ("Softmax", {}, 1, None)),
        "GlobalAveragePool": (_IMAGE, ("GlobalAveragePool", {}, 1, None)),
        "Transpose": (_ROWS, ("Transpose", {"perm": [0, 2, 1]}, 1, None)),
    }
)
"""By the name it is told by: shape of each computed input, and the operator."""


def find_kernels(activations: Sequence[str] = ("int8", "uint8")) -> list[Kernel]:
    """Run each kind of operator with codes of each type, under the runtime's default settings."""
    return [_kernel(kind, codes) for kind in KINDS for codes in activations]


def _kernel(kind: str, activations: str) -> Kernel:
    shape, _ = KINDS[kind]
    model = _quantized_operator(kind, activations)
    feed = {name.name: np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape) for name in model.graph.input}
    with tempfile.TemporaryDirectory() as folder:
        events = profile(open_session(model, threads=1, profile_prefix=Path(folder) / "profile"), feed)
    ran = tuple(str(event["args"]["op_name"]) for event in events)
    kernels = tuple(name for name in ran if name not in _CONVERSIONS)
    inputs, last = len(model.graph.input), "DequantizeLinear"
    # what runs on codes leaves one Q for each input and one DQ behind the output; in float there is a DQ and a Q more
    integer = ran.count("QuantizeLinear") <= inputs and ran.count(last) <= 1 and bool(kernels)
    return Kernel(kind, activations, kernels, integer)


def _quantized_operator(kind: str, activations: str) -> onnx.ModelProto:
    shape, (op_type, attributes, computed, constant) = KINDS[kind]
    graph = _Graph(activations)
    reads = [graph.quantized(f"x{place}", place) for place in range(computed)]
    if constant is not None:
        weights = np.resize(np.arange(-63, 64), constant).astype(np.int8)
        reads.append(graph.dequantized("w", weights, np.int8(0), _STEP / 32))
    if op_type in _BIASED:
        reads.append(graph.dequantized("b", np.arange(32, dtype=np.int32), np.int32(0), _STEP * _STEP / 32))
    graph.node(op_type, reads, ["raw"], **attributes)
    graph.node("QuantizeLinear", ["raw", "step", "zero"], ["codes"])
    graph.node("DequantizeLinear", ["codes", "step", "zero"], ["y"])
    inputs = [helper.make_tensor_value_info(f"x{place}", TensorProto.FLOAT, shape) for place in range(computed)]
    return graph.model(inputs)


class _Graph:
    """Nodes and constants of a small QDQ model."""

    def __init__(self, codes: str) -> None:
        zero = np.asarray(0 if codes == "int8" else 128, codes)
        self.nodes: list[onnx.NodeProto] = []
        self.constants = [numpy_helper.from_array(np.asarray(_STEP), "step"), numpy_helper.from_array(zero, "zero")]

    def node(self, op_type: str, reads: Sequence[str], writes: Sequence[str], **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op_type, reads, writes, name=f"{op_type}_{len(self.nodes)}", **attributes))

    def quantized(self, name: str, place: int) -> str:
        self.node("QuantizeLinear", [name, "step", "zero"], [f"codes{place}"])
        self.node("DequantizeLinear", [f"codes{place}", "step", "zero"], [f"read{place}"])
        return f"read{place}"

    def dequantized(self, name: str, codes: Array, zero: np.generic, step: np.float32) -> str:
        values = {name: codes, f"{name}_step": np.asarray(step), f"{name}_zero": np.asarray(zero)}
        self.constants += [numpy_helper.from_array(value, key) for key, value in values.items()]
        self.node("DequantizeLinear", list(values), [f"{name}_read"])
        return f"{name}_read"

    def model(self, inputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "probe", list(inputs), [output], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def saturates() -> bool:
    """Whether the runtime adds two products of unsigned activations and 8-bit weights in 16 bits here, and so clips them.

    That is what AVX2 kernels do without VNNI (docs of ONNX Runtime, quantization, "U8S8 saturation"). All products of a row are
    as large as they can be.
    """
    graph = _Graph("uint8")
    reads = [graph.quantized("x0", 0), graph.dequantized("w", np.full((64, 8), 127, np.int8), np.int8(0), _STEP)]
    graph.node("MatMul", reads, ["y"])
    model = graph.model([helper.make_tensor_value_info("x0", TensorProto.FLOAT, (1, 2, 64))])
    x = np.full((1, 2, 64), 127 * _STEP, np.float32)
    exact = 64 * 127 * _STEP * 127 * _STEP
    got = run_session(open_session(model, threads=1), {"x0": x})["y"]
    return bool((got < 0.99 * exact).any())
