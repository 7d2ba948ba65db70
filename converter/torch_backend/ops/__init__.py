"""ONNX operators (opset 20, inference) as torch functions: one table, one short rule an operator.

Each rule takes the operator's inputs (torch tensors, None where optional and absent) and its attributes, and returns
the output, or a list of outputs. Shapes and types follow the ONNX operator specification. Everything is
differentiable where torch is. An operator or an attribute value that is not here raises :class:`UnknownOperatorError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from converter.torch_backend.ops import indexing, layers, movement, pointwise, pooling, quantized, recurrent, resize, sampling
from converter.torch_backend.ops.table import Attributes, Rule, Tensor, UnknownOperatorError

__all__ = ["ACTIVATION", "POINTWISE", "UnknownOperatorError", "apply", "known"]

POINTWISE: Mapping[str, Rule] = pointwise.FLOAT
"""Operators on floating point tensors whose value at a place depends on the inputs' values at that place alone."""

ACTIVATION = pointwise.ACTIVATION
"""Of these, the ones that activation functions are spelled with."""

_RULES: Mapping[str, Rule] = {
    **pointwise.FLOAT,
    **pointwise.OTHER,
    **layers.TABLE,
    **pooling.TABLE,
    **resize.TABLE,
    **movement.TABLE,
    **indexing.TABLE,
    **sampling.TABLE,
    **recurrent.TABLE,
    **quantized.TABLE,
}


def known(op_type: str) -> bool:
    """True if the table has a rule for the operator."""
    return op_type in _RULES


def apply(op_type: str, inputs: Sequence[Tensor | None], attributes: Attributes) -> list[Tensor]:
    """Run one operator.

    Raises:
        UnknownOperatorError: no rule, or an attribute value that the rule does not cover.
    """
    if op_type not in _RULES:
        raise UnknownOperatorError(f"operator '{op_type}'")
    return _RULES[op_type](op_type, inputs, attributes)
