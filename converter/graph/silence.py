"""Silence: keep what C++ libraries print off the terminal."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
from collections.abc import Iterator

__all__ = ["silence"]

_DESCRIPTORS = (1, 2)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Send what is printed meanwhile, on stdout or stderr, to nowhere; exceptions pass.

    File descriptors are redirected as well as Python's streams, of which libraries in C++ do not know.
    """
    with contextlib.ExitStack() as stack:
        sink = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, sink)
        _flush()
        for descriptor in _DESCRIPTORS:
            with contextlib.suppress(OSError):  # one that is closed is silent anyway
                kept = os.dup(descriptor)
                stack.callback(os.close, kept)
                stack.callback(os.dup2, kept, descriptor)
                os.dup2(sink, descriptor)
        stack.callback(_flush)  # what waits in buffers when they are restored belongs to the silence
        for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
            stack.enter_context(redirect(io.StringIO()))
        yield


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a full device or a closed stream: whoever prints next is told
            if stream is not None:
                stream.flush()
    ctypes.CDLL(None).fflush(None)
