"""A command in a process of its own that cannot hang, eat all memory, or take the caller with it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ended", "run_limited"]

_STEP = 0.02


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code; negative for the signal that ended it; None if its time was up.
        out: what it wrote to stdout.
        err: the same of stderr.
        seconds: it took.
        megabytes: of memory it held at most; what it asked for in its last moment may be missing.
    """

    code: int | None
    out: str
    err: str
    seconds: float
    megabytes: float

    @property
    def complaint(self) -> str:
        """The first line of an error, or the last line that was written, or how it was ended; empty if all went well."""
        if self.code == 0:
            return ""
        if self.code is None:
            return f"not done after {self.seconds:.0f} s"
        lines = self.err.strip().splitlines()
        if self.code < 0:
            return f"ended by {signal.Signals(-self.code).name}"
        return next((line for line in lines if line.startswith("error: ")), lines[-1] if lines else f"exit {self.code}")


def run_limited(
    command: Sequence[str], *, seconds: float, megabytes: float | None = None, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run a command and wait for it.

    Args:
        command: program and arguments.
        seconds: after which it is ended, with all that it started.
        megabytes: of data that it may hold; what it asks for beyond that it does not get.
        environment: additional variables.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            begun = time.monotonic()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
            if megabytes is not None:
                limit = int(megabytes * 1e6)
                resource.prlimit(process.pid, resource.RLIMIT_DATA, (limit, limit))
            try:
                status, kilobytes = _waited(process.pid, begun + seconds)
            finally:  # what it may have left running, and itself when this process is interrupted
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.returncode = 0  # it has been waited for
        taken = time.monotonic() - begun
        code = None if status is None else os.waitstatus_to_exitcode(status)
        return Ended(code, out.read_text(errors="replace"), err.read_text(errors="replace"), taken, kilobytes / 1e3)


def _waited(pid: int, end: float) -> tuple[int | None, int]:
    """Wait status, none if the time was up; and the most kilobytes that were seen."""
    kilobytes = 0
    while time.monotonic() < end:
        kilobytes = max(kilobytes, _held(pid))
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status, kilobytes
        time.sleep(_STEP)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None, kilobytes


def _held(pid: int) -> int:
    """The high-water mark in kilobytes, 0 of a process that has ended.

    What ``wait4`` tells starts from the memory of whoever started the process.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) if "VmHWM:" in status else 0
