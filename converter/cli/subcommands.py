"""Commands beside the conversion, such as ``bridgequant compare A B``. Each is a module of its own, loaded when it is asked for."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from converter.errors import UsageError

__all__ = ["OF_CONVERSION", "SUBCOMMANDS", "Subcommand", "run_subcommand", "subcommand"]


class Subcommand(NamedTuple):
    """Where a command is, and what it does.

    Attributes:
        module: has a function ``main(words, *, prog)`` that returns the exit code. It is named and not imported, as some modules
            belong to packages that stand above this one.
        text: for ``--help``.
    """

    module: str
    text: str


OF_CONVERSION: Mapping[str, str] = MappingProxyType(
    {
        "convert": "make an int8 model of a float one; the word can be left out",
        "explain": "list bridge blocks and layers; with --calib also their ranges",
    }
)
"""Words in front of the flags of a conversion."""

SUBCOMMANDS: Mapping[str, Subcommand] = MappingProxyType(
    {
        "compare": Subcommand("converter.cli.compare", "two plans or models, tensor by tensor"),
        "doctor": Subcommand("converter.cli.doctor", "what runs in integer on this machine, and whether a file fits it"),
        "validate": Subcommand("runtime_tests.command_line", "an int8 model against the float one, with gates for CI"),
        "evaluate": Subcommand("models.evaluate", "top-1 accuracy of a classifier on labelled images"),
        "export": Subcommand("models.export", "a reference network as ONNX"),
    }
)
"""By the word that calls them."""

Command = Callable[[Sequence[str]], int]


def subcommand(words: Sequence[str]) -> tuple[str, Sequence[str]] | None:
    """The command that the first word names, and the other words; None for a conversion.

    A file of such a name can be given as ``./compare``.
    """
    return (words[0], words[1:]) if words and words[0] in SUBCOMMANDS else None


def run_subcommand(word: str, words: Sequence[str]) -> int:
    """Load a command and run it; returns the exit code.

    Raises:
        UsageError: a package is missing that an installation may leave out.
    """
    try:
        module = importlib.import_module(SUBCOMMANDS[word].module)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the package '{error.name}' is not installed", where=f"bridgequant {word}", hint="pip install 'bridgequant[models]'"
        ) from error
    command: Command = functools.partial(module.main, prog=f"bridgequant {word}")
    return command(words)
