"""Bit widths of a conversion: of weights, and of activations that enter layers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from converter.errors import UsageError

__all__ = ["BitWidths"]


@dataclass(frozen=True)
class BitWidths:
    """Bits of integers, 4 to 8 each; as a text ``W8A8``.

    Attributes:
        weights: of the weights of Conv, Gemm and MatMul.
        activations: of what enters these layers, and products of two computed tensors.

    Raises:
        UsageError: fewer or more bits.
    """

    weights: int = 8
    activations: int = 8

    def __post_init__(self) -> None:
        if not (4 <= self.weights <= 8 and 4 <= self.activations <= 8):
            raise _refusal(str(self))

    def __str__(self) -> str:
        return f"W{self.weights}A{self.activations}"

    @classmethod
    def parse(cls, text: str) -> BitWidths:
        """Read ``W8A8`` or ``w8a8``.

        Raises:
            UsageError: not of that form, or fewer than 4 or more than 8 bits.
        """
        found = re.fullmatch(r"[Ww]([4-8])[Aa]([4-8])", text)
        if not found:
            raise _refusal(text)
        return cls(int(found[1]), int(found[2]))


def _refusal(text: str) -> UsageError:
    return UsageError(f"'{text}' is not a bit width", where="--bits", hint="write W8A8; 4 to 8 bits each")
