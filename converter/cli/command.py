"""What the commands of this package share: how bad input ends, and how results are printed."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from converter.cli.completion import answer_shell
from converter.errors import ConverterError, UsageError

__all__ = ["INTERRUPTED", "Parser", "exit_code", "print_line", "unexpected"]


INTERRUPTED = 130
"""Exit code after Ctrl-C."""


_EXTRAS = {"models": ("timm", "safetensors"), "plots": ("matplotlib",), "zoo": ("torchvision", "transformers")}
"""Packages that an installation may leave out, by the extra that has them."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is an error of three lines instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with argparse's own explanation."""
        raise UsageError(message, where=self.prog, hint=f"see {self.prog} --help")

    def parse_args(self, args: Sequence[str] | None = None, namespace: None = None) -> argparse.Namespace:  # type: ignore[override]
        """Read words, or answer a shell that asks what they can be."""
        answer_shell(self)
        return super().parse_args(args, namespace)

    def check_least(self, options: argparse.Namespace, **least: float) -> None:
        """Refuse numbers below these, by name of their option; one that was not given is none."""
        for name, number in least.items():
            value = getattr(options, name)
            if value is not None and value < number:
                self.error(f"--{name} must be at least {number}, not {value}")


def exit_code(command: Callable[[], None]) -> int:
    """Run a command; what goes wrong goes to stderr in at most three lines.

    Returns:
        0; the exit code of an error raised on purpose; 1 for any other, of which the place in the source is named; 130 when interrupted.
    """
    try:
        command()
    except SystemExit as stop:  # --help has been answered
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except ConverterError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except ModuleNotFoundError as error:
        return _missing(error)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        sys.stderr.write(f"{ConverterError(unexpected(error), where=where, hint='check the files given, or report it')}\n")
        return ConverterError.exit_code
    return 0


def _missing(error: ModuleNotFoundError) -> int:
    package = (error.name or "").partition(".")[0]
    extra = next((extra for extra, packages in _EXTRAS.items() if package in packages), "")
    hint = f"pip install 'bridgequant[{extra}]'" if extra else f"install it: pip install {package}"
    refusal = UsageError(f"the package '{package}' is not installed for this Python", where=sys.executable, hint=hint)
    sys.stderr.write(f"{refusal}\n")
    return refusal.exit_code


def unexpected(error: Exception) -> str:
    """One line on an error that nobody raised on purpose."""
    return f"unexpected {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def print_line(text: str) -> None:
    """Write a result to stdout."""
    sys.stdout.write(text + "\n")
