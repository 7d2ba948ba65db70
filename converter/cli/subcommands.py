"""Commands beside the conversion: ``bridgequant compare A B``. Each is a module of its own, loaded when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import cast

__all__ = ["SUBCOMMANDS", "subcommand"]

SUBCOMMANDS = {"compare": "converter.cli.compare"}
"""Modules by the word that calls them. Each has a function ``main`` that takes the other words and returns the exit code."""

Command = Callable[[Sequence[str]], int]


def subcommand(words: Sequence[str]) -> tuple[Command, Sequence[str]] | None:
    """The command that the first word names, and the other words; None for a conversion.

    A file of such a name can be given as ``./compare``.
    """
    if not words or words[0] not in SUBCOMMANDS:
        return None
    return cast(Command, importlib.import_module(SUBCOMMANDS[words[0]]).main), words[1:]
