"""Threads share a heap, unless the user has decided on that."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_COUNT = """
import ctypes, os, sys, threading
from converter.cli.allocator import share_heap
told = share_heap() if sys.argv[1] == "share" else None
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.fopen.restype = ctypes.c_void_p, ctypes.c_void_p
barrier = threading.Barrier(8)
def allocate():
    barrier.wait()  # all at once, so that the heap is in use
    for _ in range(1000):
        libc.malloc(ctypes.c_size_t(1000))
    barrier.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
out = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
print(told, flush=True)
libc.malloc_info(0, out)
libc.fflush(out)
"""


def heaps(how: str, **environment: str) -> tuple[str, int]:
    """What the function returned, and how many heaps eight busy threads use."""
    clean = {k: v for k, v in os.environ.items() if k != "MALLOC_ARENA_MAX"} | environment
    done = subprocess.run([sys.executable, "-c", _COUNT, how], env=clean, capture_output=True, text=True, check=True)
    told, _, info = done.stdout.partition("\n")
    return told, info.count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has such heaps")
def test_threads_share_the_first_heap() -> None:
    assert heaps("share") == ("True", 1)
    assert heaps("leave")[1] > 1


_AGAIN = """
import ctypes, resource, sys
from converter.cli.allocator import share_heap
if sys.argv[1] == "share":
    share_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def fill():
    blocks = [libc.malloc(ctypes.c_size_t(4 << 20)) for _ in range(4)]
    for block in blocks: ctypes.memset(block, 1, 4 << 20)
    for block in blocks: libc.free(block)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has such heaps")
def test_what_is_freed_is_there_for_the_next_tensor() -> None:
    """Four tensors of four megabytes, ten times over: 4096 pages of 4 kB each time."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    faults = [
        int(subprocess.run([sys.executable, "-c", _AGAIN, how], env=clean, capture_output=True, text=True, check=True).stdout)
        for how in ("share", "leave")
    ]
    assert faults[0] < 4096 < 10 * 4096 // 2 < faults[1]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has such heaps")
def test_what_the_user_said_holds() -> None:
    assert heaps("share", MALLOC_ARENA_MAX="3")[0] == "False"
