"""The flags that say which device, shared by the commands."""

from __future__ import annotations

import argparse
import shlex
import sys

from converter.errors import UsageError
from tools.device_bench.transport import Transport, adb_transport, local_transport, ssh_transport

__all__ = ["add_device_flags", "python_of", "tell", "transport_of"]


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    """Add the way to the device, one of three, and what starts its Python."""
    ways = parser.add_mutually_exclusive_group(required=True)
    ways.add_argument("--ssh", metavar="HOST", help="reach the device by ssh, with a key; a phone with Termux too")
    ways.add_argument("--adb", nargs="?", const="", metavar="SERIAL", help="reach it by adb; without SERIAL the only one")
    ways.add_argument("--local", action="store_true", help="this machine is the device")
    add = parser.add_argument
    add("--ssh-options", default="", metavar="WORDS", help="for ssh, in one word, such as --ssh-options='-p 8022'")
    add(
        "--python",
        default="python3",
        metavar="WORDS",
        help="start the device's Python, with NumPy and ONNX Runtime (default python3)",
    )


def transport_of(options: argparse.Namespace) -> Transport:
    """The way that was asked for.

    Raises:
        UsageError: the words make no sense.
    """
    if options.ssh is not None:
        return ssh_transport(options.ssh, _words(options.ssh_options, "--ssh-options"))
    if options.ssh_options:
        raise UsageError("--ssh-options means nothing without --ssh", where="--ssh-options", hint="leave it out, or give --ssh HOST")
    return local_transport() if options.local else adb_transport(options.adb or None)


def python_of(options: argparse.Namespace) -> tuple[str, ...]:
    """The words that start the device's Python.

    Raises:
        UsageError: there are none.
    """
    words = _words(options.python, "--python")
    if not words:
        raise UsageError("nothing starts Python", where="--python", hint="give a path, such as /usr/bin/python3")
    return words


def _words(text: str, flag: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"the words cannot be told apart: {error}", where=f"{flag} {text}", hint="close the quotes") from None


def tell(text: str) -> None:
    """Say on stderr what is done next."""
    sys.stderr.write(f"{text}\n")
