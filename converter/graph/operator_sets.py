"""Sets of operators that several stages speak of, and the operator set that the canonical graph is of."""

from __future__ import annotations

__all__ = [
    "BARRIER",
    "CANONICAL_OPSET",
    "CLAMPS",
    "CONVOLUTIONS",
    "LAYERS",
    "MOVEMENT",
    "NEWEST_OUTPUT_OPSET",
    "OLDEST_OUTPUT_OPSET",
    "PRODUCTS",
    "READS_SHAPE_ONLY",
    "REARRANGEMENT",
    "RECURRENT",
    "VIEWS",
]

CANONICAL_OPSET = 20
"""The newest version of the standard operators with all that are wanted (Gelu) and none that ONNX Runtime 1.19 lacks."""

OLDEST_OUTPUT_OPSET, NEWEST_OUTPUT_OPSET = 13, 22
"""What an emitted graph can be written in: 13 brought Q and DQ with one scale per channel; a Q of 23 has no kernel in some runtimes."""

BARRIER = "Max"
"""A Max of one operand copies its input; the runtime neither removes it nor moves anything through it."""

LAYERS = frozenset(["Conv", "Gemm", "MatMul"])
"""Operators that multiply matrices in integer."""

CONVOLUTIONS = frozenset(["Conv", "ConvTranspose"])

PRODUCTS = LAYERS | CONVOLUTIONS
"""Operators whose first two inputs are multiplied."""

RECURRENT = frozenset(["GRU", "LSTM", "RNN"])

CLAMPS = frozenset(["Clip", "Relu"])

READS_SHAPE_ONLY = frozenset(["Shape", "Size"])

VIEWS = frozenset(["Flatten", "Reshape", "Squeeze", "Unsqueeze"])
"""Operators that give a tensor another shape and leave its numbers in order."""

MOVEMENT = VIEWS | {"Expand", "Gather", "Resize", "Slice", "Split", "Tile", "Transpose"}
"""Operators that move numbers and change none, where a Resize takes the nearest."""

REARRANGEMENT = MOVEMENT - {"Resize"} | {"DepthToSpace", "Identity", "SpaceToDepth"}
"""Operators that move numbers and change none, whatever their attributes."""
