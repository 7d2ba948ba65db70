"""Numbers inside operators whose integer form is more than one node, and codes of clamps. Pure numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from converter.quantization.parameters import FloatArray, QuantParams, quantize

__all__ = ["HARD_SIGMOID_OFFSET", "QuickGelu", "clamp_codes", "fit_quick_gelu", "gate_grid", "offset_grid", "sigmoid_grid"]

HARD_SIGMOID_OFFSET = 3.0

_SLOPES = np.linspace(1.2, 2.0, 41, dtype=np.float32).astype(np.float64)
"""Of a sigmoid that stands for GELU's gate: 1.596 has its slope at zero, 1.702 is closest to it over all numbers."""

_MOST_BASE = 32
_FITTED = 4096


@dataclass(frozen=True)
class QuickGelu:
    """What an integer GELU multiplies x with: height * (sigmoid(slope * x) - base / 256), on the grid of the sigmoid's codes.

    Attributes:
        slope: the sigmoid reads the codes of x with their scale times this.
        height: the product reads the codes of the sigmoid with their scale times this,
        base: and with a zero point this many codes higher.
    """

    slope: float
    height: float
    base: int

    def read_grid(self, *, signed: bool) -> QuantParams:
        """The grid with which the product reads the sigmoid's codes."""
        grid = sigmoid_grid(signed=signed)
        return replace(grid.rescaled(self.height), zero_point=(grid.zero_point[0] + self.base,))


def sigmoid_grid(*, signed: bool) -> QuantParams:
    """The grid of the runtime's own Sigmoid: 0 to 255/256 in steps of 1/256."""
    return QuantParams((2.0**-8,), (-128 if signed else 0,), 8, signed)


def fit_quick_gelu(x: FloatArray, gelu: Callable[[FloatArray], FloatArray]) -> tuple[QuickGelu, float]:
    """The gate with which x * gate(x) is closest to GELU on a sample, and the mean squared error it leaves.

    GELU is x times the distribution function of the normal distribution, of which a sigmoid of slope 1.702 is no further
    off than 0.01 (Hendrycks and Gimpel, arXiv 1606.08415, section 2). Over the numbers that a layer really has, a fitted
    sigmoid that need not end in 0 and 1 is several times closer.

    Args:
        x: sample of the input, any shape.
        gelu: the function.
    """
    values = x.reshape(-1)[:_FITTED].astype(np.float64)
    wanted = gelu(values.astype(np.float32)).astype(np.float64)
    best = (QuickGelu(float(_SLOPES[0]), 1.0, 0), np.inf)
    for slope in _SLOPES:
        codes = np.clip(np.rint(256.0 / (1.0 + np.exp(-np.clip(slope * values, -80.0, 80.0)))), 0, 255)
        for base in {0, _base(codes * values, values, wanted)}:
            product = values * (codes - base) / 256.0
            power = float(product @ product)
            height = float(np.float32(np.clip(product @ wanted / power, 0.5, 2.0))) if power > 0.0 else 1.0
            error = float(np.square(height * product - wanted).mean()) if values.size else 0.0
            if error < best[1]:
                best = (QuickGelu(float(slope), height, base), error)
    return best


def _base(product: FloatArray, values: FloatArray, wanted: FloatArray) -> int:
    """The whole number b with which height * (product - b * values) comes closest to what is wanted, by least squares."""
    gram = np.asarray([[product @ product, product @ values], [product @ values, values @ values]])
    height, offset = np.linalg.lstsq(gram, np.asarray([product @ wanted, values @ wanted]), rcond=None)[0]
    return int(np.clip(np.rint(-offset / height), 0, _MOST_BASE)) if height > 0.0 else 0


def gate_grid(*, signed: bool) -> QuantParams:
    """The grid of relu6(x + 3) inside an integer HardSwish: 0 to 6 over all codes of the container.

    It enters no layer, so it has 8 bits whatever the width of x is, and its container alone keeps it within its limits.
    """
    return _from_zero(6.0, signed=signed)


def offset_grid(*, signed: bool) -> QuantParams:
    """A grid on which the constant 3 is exact: the highest code of the container."""
    return _from_zero(HARD_SIGMOID_OFFSET, signed=signed)


def _from_zero(highest: float, *, signed: bool) -> QuantParams:
    return QuantParams((float(np.float32(highest / 255)),), (-128 if signed else 0,), 8, signed)


def clamp_codes(op_type: str, limits: Sequence[float | None], grid: QuantParams) -> tuple[int, int]:
    """Lowest and highest code that a Relu's or Clip's output can have on a per-tensor grid.

    Args:
        op_type: ``Relu``, or ``Clip`` with its limits.
        limits: lowest and highest number; missing or None where there is none.
        grid: of the output.
    """
    low, high = (0.0, None) if op_type == "Relu" else (*limits, None, None)[:2]
    ends = np.asarray([-3e38 if low is None else low, 3e38 if high is None else high], np.float32)
    lowest, highest = quantize(np.clip(ends, -1e30, 1e30), grid).tolist()
    return int(lowest), int(highest)
