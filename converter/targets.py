"""Targets: which integer kernels a machine class has, and what float and integer forms cost there. Data only.

Costs are ARM64 instructions (``arm64``) or picoseconds of one core (``x86``), per output element or per
multiply-accumulate, measured with ONNX Runtime 1.23 and 1.32 on operators of the sizes that hybrid vision transformers
have. Only their ratios matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["TARGETS", "Cost", "Target"]


@dataclass(frozen=True)
class Cost:
    """Cost of an operator: per output element, plus per multiply-accumulate (GlobalAveragePool: per element summed)."""

    float_element: float
    integer_element: float
    float_mac: float = 0.0
    integer_mac: float = 0.0


@dataclass(frozen=True)
class Target:
    """One machine class.

    Attributes:
        name: as on the command line.
        description: for the report.
        signed_activations: int8 codes if true, uint8 otherwise.
        largest_pair: largest sum of two products that a dense kernel holds on its way to 32 bits; None where it has 32 all along.
        depthwise_weight_bits: widest weights that no depthwise kernel saturates on.
        quantize_element: cost of QuantizeLinear per element.
        dequantize_element: cost of DequantizeLinear per element.
        costs: by operator kind; the keys are ONNX operators, ``DepthwiseConv``, and ``Linear`` (Gemm and MatMul with constant weights).
        session_settings: runtime settings under which another machine runs the kernels of this one, by machine architecture.
    """

    name: str
    description: str
    signed_activations: bool
    largest_pair: int | None
    depthwise_weight_bits: int
    quantize_element: float
    dequantize_element: float
    costs: Mapping[str, Cost]
    session_settings: Mapping[str, Mapping[str, str]]

    def dense_weight_bits(self, activation_bits: int) -> int:
        """Widest weights, 8 bits or fewer, that no dense kernel saturates on beside activations of that width.

        Weights are symmetric; activations have the lowest codes of their container where a pair is limited.
        """
        activation = 2**activation_bits - 1
        fits = (b for b in range(8, 1, -1) if self.largest_pair is None or 2 * activation * (2 ** (b - 1) - 1) <= self.largest_pair)
        return next(fits)


_MOVEMENT = (
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Expand", "Tile", "Split",
)  # fmt: skip

_ARM64 = Target(
    name="arm64",
    description="ARM64 with dot product (Cortex-A75 and newer), int8 activations and weights",
    signed_activations=True,
    largest_pair=None,
    depthwise_weight_bits=8,
    quantize_element=2.75,
    dequantize_element=1.37,
    costs={
        "Conv": Cost(1.0, 1.0, 0.36, 0.14),
        "DepthwiseConv": Cost(1.0, 1.0, 3.5, 0.85),
        "Linear": Cost(0.5, 0.5, 0.34, 0.17),
        "MatMul": Cost(0.0, 2.4, 0.35, 0.12),
        "Add": Cost(1.8, 2.9),
        "Mul": Cost(1.8, 2.9),
        "Sigmoid": Cost(8.0, 4.0),
        "LeakyRelu": Cost(2.6, 4.0),
        "HardSwish": Cost(4.1, 5.3),
        "Gelu": Cost(23.8, 6.9),
        "Relu": Cost(1.5, 0.2),
        "Clip": Cost(1.8, 0.2),
        "Concat": Cost(0.6, 2.1),
        "GlobalAveragePool": Cost(0.0, 0.0, 1.9, 0.8),
        "Resize": Cost(1.6, 1.4),
        **{op: Cost(0.9, 0.5) for op in _MOVEMENT},
    },
    session_settings={"x86_64": {"session.qdqisint8allowed": "1"}, "AMD64": {"session.qdqisint8allowed": "1"}},
)

_X86 = Target(
    name="x86",
    description="x86-64 with AVX2 and without VNNI, uint8 activations, 7-bit weights where 8 would saturate",
    signed_activations=False,
    largest_pair=2**15 - 1,
    depthwise_weight_bits=8,
    quantize_element=280.0,
    dequantize_element=130.0,
    costs={
        "Conv": Cost(100.0, 100.0, 23.0, 12.5),
        "DepthwiseConv": Cost(60.0, 60.0, 95.0, 100.0),
        "Linear": Cost(100.0, 100.0, 22.0, 15.5),
        "MatMul": Cost(0.0, 200.0, 26.0, 17.0),
        "Add": Cost(150.0, 150.0),
        "Mul": Cost(150.0, 250.0),
        "Sigmoid": Cost(330.0, 300.0),
        "LeakyRelu": Cost(250.0, 300.0),
        "HardSwish": Cost(340.0, 360.0),
        "Gelu": Cost(950.0, 550.0),
        "Relu": Cost(100.0, 20.0),
        "Clip": Cost(150.0, 20.0),
        "Concat": Cost(150.0, 180.0),
        "GlobalAveragePool": Cost(0.0, 0.0, 600.0, 200.0),
        "Resize": Cost(340.0, 200.0),
        **{op: Cost(150.0, 100.0) for op in _MOVEMENT},
    },
    session_settings={},
)

TARGETS: Mapping[str, Target] = {"arm64": _ARM64, "x86": _X86}
