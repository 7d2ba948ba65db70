"""Names of the planning methods, without loading them: a wrong flag is answered at once."""

from __future__ import annotations

__all__ = ["DEFAULT_METHOD", "DEFAULT_OBSERVER", "METHOD_NAMES", "OBSERVERS", "OBSERVING"]

METHOD_NAMES = ("minmax", "percentile", "mse", "easyquant", "fq-vit", "ptq4vit", "repq-vit", "q-hyvit")

DEFAULT_METHOD = "q-hyvit"

OBSERVERS = ("minmax", "percentile", "omse")
"""How ranges are seen by a method that leaves the choice."""

DEFAULT_OBSERVER = "minmax"

OBSERVING = ("fq-vit",)
"""Methods that leave the choice."""
