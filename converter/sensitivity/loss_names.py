"""Losses of outputs as the command line says them, apart from :mod:`converter.sensitivity.output_loss`, which needs heavy libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from converter.errors import UsageError

__all__ = ["LOSS_NAMES", "LossName", "parse_losses"]

LossName = Literal["scores", "values"]
LOSS_NAMES: tuple[LossName, ...] = get_args(LossName)


def parse_losses(texts: Sequence[str]) -> dict[str, LossName]:
    """``NAME=scores`` or ``NAME=values``, one for each output.

    Raises:
        UsageError: not of that form, or an output is named twice.
    """
    wanted: dict[str, LossName] = {}
    for text in texts:
        name, _, kind = text.rpartition("=")
        if not name or kind not in LOSS_NAMES:
            raise UsageError(f"'{text}' is not a loss", where="--loss", hint="write NAME=scores or NAME=values, NAME being an output")
        if name in wanted:
            raise UsageError(f"output '{name}' has two losses", where="--loss", hint="give one for each output")
        wanted[name] = kind
    return wanted
