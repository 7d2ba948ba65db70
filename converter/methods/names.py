"""Names of the planning methods, without loading them: a wrong flag is answered at once."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["DEFAULT_METHOD", "DEFAULT_OBSERVER", "METHOD_NAMES", "OBSERVERS", "OBSERVING", "Method", "Observer"]

Method = Literal["minmax", "percentile", "mse", "easyquant", "fq-vit", "ptq4vit", "repq-vit", "q-hyvit"]
METHOD_NAMES: tuple[Method, ...] = get_args(Method)
DEFAULT_METHOD: Method = "q-hyvit"

Observer = Literal["minmax", "percentile", "omse"]
"""How ranges are seen by a method that leaves the choice."""

OBSERVERS: tuple[Observer, ...] = get_args(Observer)
DEFAULT_OBSERVER: Observer = "minmax"

OBSERVING = ("fq-vit",)
"""Methods that leave the choice."""
