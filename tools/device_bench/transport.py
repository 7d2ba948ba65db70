"""How to reach a device: run a command there, send a file, fetch a file. SSH, adb or this machine behind one record of functions."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from converter.errors import ConverterError, UsageError

__all__ = ["Transport", "adb_transport", "local_transport", "remote_folder", "ssh_transport"]

_PREFIX = "bridgequant."
_LONGEST = 200
_ANDROID_FOLDER = "/data/local/tmp"
_USUAL_FOLDER = "${TMPDIR:-/tmp}"

_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15")
"""Never asks for a password, and notices a device that is gone."""

_NO_CONNECTION = 255
"""Exit code of ssh itself, rather than of the command that it runs."""


@dataclass(frozen=True)
class Transport:
    """A way to a device. Each function raises ConverterError with the last line that was written to stderr if it fails.

    Attributes:
        name: of the way and the device, for people.
        temporary: folder for temporary files there, as a shell reads it within double quotes.
        run: runs the words of a command there and returns what it writes to stdout; words are quoted, no shell reads them.
        push: copies a file of this machine to a path there.
        pull: copies a file from there to a path of this machine.
    """

    name: str
    temporary: str
    run: Callable[[Sequence[str]], str]
    push: Callable[[Path, str], None]
    pull: Callable[[str, Path], None]


def ssh_transport(host: str, options: Sequence[str] = ()) -> Transport:
    """By the system's own ``ssh``, with its configuration and keys. Files go through ``cat``, so that nothing else is needed there.

    Args:
        host: as ``ssh`` takes it, such as ``pi@raspberrypi`` or a name of the configuration.
        options: further ones, such as ``-p 8022``.

    Raises:
        UsageError: the host has a form that ``ssh`` would take for something else.
    """
    _check_name(host, "--ssh")
    command = [*_SSH, *options, "--", host]

    def run(words: Sequence[str]) -> str:
        return _text(_finished([*command, shlex.join(words)], host))

    def push(local: Path, remote: str) -> None:
        with local.open("rb") as content:
            _finished([*command, f"cat > {shlex.quote(remote)}"], host, stdin=content)

    def pull(remote: str, local: Path) -> None:
        with local.open("wb") as content:
            _finished([*command, shlex.join(["cat", remote])], host, stdout=content)

    return Transport(f"ssh {host}", _USUAL_FOLDER, run, push, pull)


def adb_transport(serial: str | None = None) -> Transport:
    """By ``adb``, Android's debug bridge.

    Args:
        serial: of the device, as ``adb devices`` shows it; None for the only one.

    Raises:
        UsageError: the serial number has a form that ``adb`` would take for something else.
    """
    if serial is not None:
        _check_name(serial, "--adb")
    command = ["adb", *(["-s", serial] if serial is not None else [])]
    device = serial or "the only device"

    def run(words: Sequence[str]) -> str:
        return _text(_finished([*command, "shell", shlex.join(words)], device))

    def push(local: Path, remote: str) -> None:
        _finished([*command, "push", str(local), remote], device)

    def pull(remote: str, local: Path) -> None:
        _finished([*command, "pull", remote, str(local)], device)

    return Transport(f"adb {device}", _ANDROID_FOLDER, run, push, pull)


def local_transport() -> Transport:
    """This machine as the device."""

    def run(words: Sequence[str]) -> str:
        return _text(_finished(list(words), "this machine"))

    def push(local: Path, remote: str) -> None:
        shutil.copyfile(local, remote)

    def pull(remote: str, local: Path) -> None:
        shutil.copyfile(remote, local)

    return Transport("this machine", _USUAL_FOLDER, run, push, pull)


@contextlib.contextmanager
def remote_folder(device: Transport) -> Iterator[str]:
    """A new empty folder on the device, which is removed in the end, also behind an error or an interruption.

    Raises:
        ConverterError: it cannot be made, or not be removed; behind another error, the latter is only written to stderr.
    """
    template = f'"{device.temporary}/{_PREFIX}XXXXXX"'
    folder = device.run(["sh", "-c", f"mktemp -d {template}"]).strip()
    if not (folder.startswith("/") and _PREFIX in folder and "\n" not in folder):  # it will be removed with all that is in it
        raise ConverterError(
            "the device names no temporary folder", where=f"{device.name}: {folder!r}", hint="see what mktemp -d says there"
        )
    try:
        yield folder
    except BaseException:
        try:
            _remove(device, folder)
        except ConverterError as error:
            sys.stderr.write(f"{error}\n")
        raise
    _remove(device, folder)


def _remove(device: Transport, folder: str) -> None:
    try:
        device.run(["rm", "-rf", folder])
    except ConverterError as error:
        raise ConverterError(
            f"the temporary folder is still there: {error.what}", where=f"{device.name}: {folder}", hint="remove it by hand"
        ) from None


def _check_name(name: str, flag: str) -> None:
    if not name or name.startswith("-") or any(letter.isspace() or not letter.isprintable() for letter in name):
        raise UsageError(f"{name!r} names no device", where=flag, hint="give it as the program itself takes it, without options")


def _finished(command: Sequence[str], device: str, *, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None) -> bytes:
    """Run a program of this machine to its end, and return its stdout, if that goes to no file."""
    program = command[0]
    try:
        done: subprocess.CompletedProcess[Any] = subprocess.run(
            command, stdin=stdin or subprocess.DEVNULL, stdout=stdout or subprocess.PIPE, stderr=subprocess.PIPE
        )
    except FileNotFoundError:
        raise UsageError(f"the program '{program}' is missing", where=device, hint="install it, and put it in PATH") from None
    except OSError as error:
        raise ConverterError(f"'{program}' cannot be run: {error.strerror}", where=device) from None
    if done.returncode == 0:
        return done.stdout or b""
    lines = [line for line in _text(done.stderr).splitlines() if line.strip()] or [f"'{program}' ended with code {done.returncode}"]
    if program == "ssh" and done.returncode == _NO_CONNECTION:
        raise UsageError(f"the device cannot be reached: {lines[-1][:_LONGEST]}", where=device, hint="see whether ssh gets there by a key")
    raise ConverterError(f"a command failed on the device: {lines[-1][:_LONGEST]}", where=f"{device}: {command[-1][:_LONGEST]}")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")
