"""A method's answer for one tensor and one layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.calibration.observer import TensorStats
from converter.methods.problem import Problem
from converter.plan.choice import Choice, Constant


def solve(
    choose: Callable[[Problem], Choice],
    sample: Any,
    weight: Any = ((1.0,),),
    *,
    bits: int = 8,
    weight_bits: int = 8,
    signed: bool = True,
) -> Choice:
    """Put one tensor sample ``x`` and one weight ``w`` [channels, values] to a method."""
    x: npt.NDArray[np.float32] = np.asarray(sample, np.float32)
    stats = TensorStats(float(x.min()), float(x.max()), x, x.shape)
    constants = {("layer", 1): Constant(np.asarray(weight, np.float32), 0, weight_bits)}
    return choose(Problem({"x": stats}, constants, {"x": bits}, signed))
