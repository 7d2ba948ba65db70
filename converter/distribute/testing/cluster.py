"""A Ray cluster of processes of this machine."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ray_cluster"]

_ADDRESS = re.compile(r"--address='([^']+)'")
_STORE = 100 << 20
"""Bytes of the object store: little, as tests put little there."""


@contextmanager
def ray_cluster(cores: int) -> Iterator[str]:
    """Start a cluster of so many workers at once, give its address, and end all of its processes."""
    words = ["--head", "--block", "--port=0", "--node-ip-address=127.0.0.1", f"--num-cpus={cores}", f"--object-store-memory={_STORE}"]
    words += ["--include-dashboard=false", "--disable-usage-stats"]
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "log"
        with log.open("wb") as stream:
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, f"--temp-dir={folder}"]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while not (found := _ADDRESS.search(log.read_text())):
                try:
                    process.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
                raise RuntimeError(f"Ray does not start: {log.read_text()}")
            yield found[1]
        finally:
            process.terminate()  # it ends those that it has started
            process.wait()
