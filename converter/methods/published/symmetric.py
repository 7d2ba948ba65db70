"""Grids about zero, as the methods have them that know no zero point."""

from __future__ import annotations

import numpy as np

from converter.methods.problem import Problem, choose_by_ranges
from converter.methods.ranges.minmax import magnitudes
from converter.plan.choice import Choice
from converter.quantization.parameters import SMALLEST_SCALE, QuantParams

__all__ = ["centred_grid", "choose_centred"]


def centred_grid(reach: float, bits: int, signed: bool) -> QuantParams:
    """The grid whose highest code stands for ``reach`` and whose middle code stands for zero."""
    scale = float(np.float32(max(reach / (2 ** (bits - 1) - 1), SMALLEST_SCALE)))
    return QuantParams((scale,), (0 if signed else 2 ** (bits - 1),), bits, signed)


def choose_centred(problem: Problem) -> Choice:
    """Grids about zero that reach the largest magnitude seen; constant operands that are no weights as min-max has them."""
    constants = choose_by_ranges(problem, lambda stats, bits: (stats.minimum, stats.maximum), magnitudes).constants
    tensors = {
        name: centred_grid(max(-stats.minimum, stats.maximum), problem.bits[name], problem.signed)
        for name, stats in problem.tensors.items()
    }
    return Choice(tensors, constants)
