"""One heap for all threads of a process of ours, so that a conversion's memory does not depend on which thread freed it, and that keeps it.

glibc gives threads heaps of their own ("arenas"; mallopt(3), M_ARENA_MAX), and what is freed in one of them is of no use to the
others. Tensors of many megabytes that come and go on several threads then take more than is in use, and how much more changes
from run to run.

By itself glibc gives what is freed at the heap's end back to the system, and each large tensor a mapping of its own (M_TRIM_THRESHOLD and
M_MMAP_THRESHOLD): the next tensor's pages then come one by one from the kernel, which fills them with zeros. Between the steps of a
conversion :mod:`converter.system.freed_memory` gives them back.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["share_heap"]

_ARENA_MAX = -8
"""M_ARENA_MAX in glibc's malloc.h."""

_KEPT = {-1: 1 << 29, -3: 1 << 25}
"""Bytes, by M_TRIM_THRESHOLD and M_MMAP_THRESHOLD there; of the latter it takes no more."""


def share_heap() -> bool:
    """Let threads that start from now on use the first thread's heap, and the heap keep what is freed.

    Returns:
        False where the C library is another than glibc, or the user has said how many heaps there may be.
    """
    if "MALLOC_ARENA_MAX" in os.environ or os.name != "posix":
        return False
    library = ctypes.CDLL(None)
    # other libraries may have a mallopt whose numbers mean something else
    if not (hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt")):
        return False
    return all([library.mallopt(_ARENA_MAX, 1), *(library.mallopt(what, size) for what, size in _KEPT.items())])
