"""Names of the planning methods, without loading them: a wrong flag is answered at once."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["DEFAULT_METHOD", "DEFAULT_OBSERVER", "METHOD_NAMES", "OBSERVERS", "OBSERVING", "MethodName", "ObserverName"]

MethodName = Literal["minmax", "percentile", "mse", "easyquant", "fq-vit", "ptq4vit", "repq-vit", "q-hyvit"]
METHOD_NAMES: tuple[MethodName, ...] = get_args(MethodName)
DEFAULT_METHOD: MethodName = "q-hyvit"

ObserverName = Literal["minmax", "percentile", "omse"]
"""How ranges are seen by a method that leaves the choice."""

OBSERVERS: tuple[ObserverName, ...] = get_args(ObserverName)
DEFAULT_OBSERVER: ObserverName = "minmax"

OBSERVING = ("fq-vit",)
"""Methods that leave the choice."""
