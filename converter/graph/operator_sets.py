"""Sets of operators that several stages speak of, and the operator set that the canonical graph is of."""

from __future__ import annotations

__all__ = ["BARRIER", "CANONICAL_OPSET", "MOVEMENT"]

CANONICAL_OPSET = 20
"""The newest version of the standard operators with all that are wanted (Gelu) and none that ONNX Runtime 1.19 lacks."""

BARRIER = "Max"
"""A Max of one operand copies its input; the runtime neither removes it nor moves anything through it."""

MOVEMENT = frozenset(["Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Expand", "Tile", "Split", "Resize"])
"""Operators that move numbers and change none."""
