"""What has been freed between things that stay does not stay too."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_GAPS = """
import ctypes
from pathlib import Path
from converter.system.freed_memory import release_freed_memory
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [libc.malloc(ctypes.c_size_t(100_000)) for _ in range(2000)]
for block in blocks: ctypes.memset(block, 1, 100_000)
for block in blocks[::2]: libc.free(block)
before = resident()
release_freed_memory()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such function")
def test_gaps_are_given_back() -> None:
    """A thousand gaps of 100 kB each; a page at either end of each stays."""
    done = subprocess.run([sys.executable, "-c", _GAPS], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 80_000
