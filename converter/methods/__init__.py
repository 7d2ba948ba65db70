"""Planning methods: each chooses a grid for every tensor and every constant it is offered.

A method sees numbers and nothing else: what was observed of each tensor, each constant operand, and how many bits
there are. It knows neither ONNX nor the target. A new method is one file here and one line in :data:`METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable

from converter.methods import minmax, mse, percentile
from converter.methods.problem import Choice, Problem

__all__ = ["DEFAULT_METHOD", "METHODS", "Choice", "Problem"]

METHODS: dict[str, Callable[[Problem], Choice]] = {
    "minmax": minmax.choose,
    "percentile": percentile.choose,
    "mse": mse.choose,
}

DEFAULT_METHOD = "mse"
