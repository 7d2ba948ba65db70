"""What a method chooses: a grid for every tensor and every constant that shall have integer codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.quantization.parameters import QuantParams
from converter.transforms.sigmoids.piecewise_linear import PricedApproximation

__all__ = ["Choice", "Constant"]


@dataclass(frozen=True)
class Constant:
    """A constant operand to be stored as integers.

    Attributes:
        array: float32, any shape.
        axis: its output channels; None for a per-tensor grid.
        bits: of its codes.
        signed: None where the grid must be symmetric (weights); else whether an asymmetric grid has signed codes.
    """

    array: npt.NDArray[Any]
    axis: int | None
    bits: int
    signed: bool | None = None

    def rows(self) -> npt.NDArray[np.float32]:
        """float32 [channels, values per channel]."""
        if self.axis is None:
            return self.array.reshape(1, -1).astype(np.float32)
        return np.moveaxis(self.array, self.axis, 0).reshape(self.array.shape[self.axis], -1).astype(np.float32)


@dataclass(frozen=True)
class Choice:
    """A grid for every tensor and constant of the problem, under the same keys.

    Attributes:
        tensors: grids of tensors.
        constants: grids of constants.
        weight_sensitivity: what the constants of an operator's integer form add to the loss, by its name, 0 or more; methods need not say.
        activation_sensitivity: what a tensor's grid adds to the loss, by its name.
        blind: (layers that no gradient reached, layers judged), where a method looks at gradients.
        lines: what is closest to each sigmoid that has a site, and what it adds to the loss, by the sigmoid's name; methods need not say.
        given_up: the method's own ranges changed the outputs far more than those of MSE, which are given instead.
    """

    tensors: dict[str, QuantParams]
    constants: dict[tuple[str, int], QuantParams]
    weight_sensitivity: dict[str, float] = field(default_factory=dict)
    activation_sensitivity: dict[str, float] = field(default_factory=dict)
    blind: tuple[int, int] = (0, 0)
    given_up: bool = False
    lines: dict[str, PricedApproximation] = field(default_factory=dict)
