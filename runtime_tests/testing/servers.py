"""Servers of other programs on the loopback, for as long as a test needs them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence

__all__ = ["free_port", "running_server"]

_LONGEST = 20.0
"""Seconds until it has to answer."""


def free_port() -> int:
    """A port of the loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running_server(command: Sequence[str], port: int) -> Iterator[None]:
    """Start a server and wait until it answers at the port. The process ends with the block."""
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + _LONGEST
        while not _answers(port):
            assert server.poll() is None, "the server ended at once"
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
