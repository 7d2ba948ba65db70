"""Words that a shell proposes behind ``bridgequant``, by argcomplete.

``eval "$(register-python-argcomplete bridgequant)"`` in bash or zsh asks for them. The shell then calls the program with the line so far
in the environment; whatever parser that line leads to answers, in the place of reading words.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Sequence

__all__ = ["answer_shell", "propose_commands", "words_of_shell"]

_ASKED = "_ARGCOMPLETE"
"""Set where a shell asks: to the number of words that call the program, 1 or more where they are ``python -m converter``."""


def words_of_shell(commands: Collection[str]) -> Sequence[str] | None:
    """The finished words of a line behind the program, if a shell asks for the next one; else None.

    A command among them is counted as a part of the program's name, so that its own parser sees what stands behind.
    """
    if _ASKED not in os.environ:
        return None
    line = os.environ["COMP_LINE"].encode()[: int(os.environ["COMP_POINT"])].decode(errors="ignore")
    words = line.split()  # flags and commands have no blanks
    finished = words if line[-1:].isspace() else words[:-1]
    program = int(os.environ[_ASKED])
    if finished[program : program + 1] and finished[program] in commands:
        os.environ[_ASKED] = str(program + 1)
    return finished[program:]


def propose_commands(action: argparse.Action, commands: Collection[str]) -> None:
    """Let a positional argument be completed by commands beside models."""

    def proposals(prefix: str, **_: object) -> list[str]:
        from argcomplete.completers import FilesCompleter

        return [*(word for word in commands if word.startswith(prefix)), *FilesCompleter(("onnx",))(prefix)]

    action.completer = proposals  # type: ignore[attr-defined]


def answer_shell(parser: argparse.ArgumentParser) -> None:
    """If a shell asks, tell it what the parser can read next and end the process."""
    if _ASKED in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
