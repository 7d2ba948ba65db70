"""What is said of a piece whose workers die."""

from __future__ import annotations

from converter.errors import ConverterError

__all__ = ["TRIES", "died"]

TRIES = 3
"""Workers that a piece is given to, one after the other, as long as they die."""


def died(piece: str) -> ConverterError:
    """The error of a piece that no worker survives."""
    hint = "start it again: what was done is kept; with fewer at once if memory ran out"
    return ConverterError(f"{TRIES} workers died one after the other", where=piece, hint=hint)
