"""Memory that has been freed: back to the system, between steps that leave much of it behind."""

from __future__ import annotations

import ctypes
import os

__all__ = ["release_freed_memory"]


def release_freed_memory() -> None:
    """Give back whole pages that malloc keeps for later, where the C library has a function for that (glibc's malloc_trim).

    Running a network forwards and backwards leaves gaps between what is kept of it. The next step has tensors of other sizes, which
    do not fit into them.
    """
    if os.name == "posix" and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
