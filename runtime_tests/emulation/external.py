"""Running other programs, with errors that say what to do."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence

from converter.errors import ConverterError, UsageError

__all__ = ["run_program"]

_LONGEST = 200


def run_program(command: Sequence[str], what: str, *, hint: str, install: str = "", variables: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return what it wrote to stdout.

    Args:
        what: what it is for, as in "unpacking the packages".
        install: the Debian package that has the program.
        variables: the whole environment; by default this process's own.

    Raises:
        UsageError: the program is not there.
        ConverterError: it failed; the message has the last line it wrote.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=variables, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        todo = f"install it (apt-get install {install})" if install else "this needs Debian 12"
        raise UsageError(f"the program '{command[0]}' is missing", where=what, hint=todo) from None
    except OSError as error:
        raise ConverterError(f"'{command[0]}' cannot be run: {error.strerror}", where=what, hint=hint) from None
    if done.returncode != 0:
        lines = [line for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
        said = _telling(lines) or f"it ended with code {done.returncode}"
        raise ConverterError(f"{what} failed: {said[:_LONGEST]}", where=shlex.join(command)[:_LONGEST], hint=hint)
    return done.stdout


def _telling(lines: Sequence[str]) -> str:
    """The line that says most: the first that calls itself an error, else the last."""
    marked = [line for line in lines if line.startswith(("E: ", "ERROR:", "fatal:")) or " error: " in line]
    return (marked or list(lines[-1:]) or [""])[0].strip()
