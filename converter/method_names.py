"""Names of the planning methods, without loading them: a wrong flag is answered at once."""

from __future__ import annotations

__all__ = ["DEFAULT_METHOD", "METHOD_NAMES"]

METHOD_NAMES = ("minmax", "percentile", "mse", "easyquant", "fq-vit", "ptq4vit", "repq-vit", "q-hyvit")

DEFAULT_METHOD = "q-hyvit"
