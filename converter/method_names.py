"""Names of the planning methods, without loading them: a wrong flag is answered at once."""

from __future__ import annotations

__all__ = ["DEFAULT_METHOD", "METHOD_NAMES"]

METHOD_NAMES = ("minmax", "percentile", "mse", "q-hyvit")

DEFAULT_METHOD = "q-hyvit"
