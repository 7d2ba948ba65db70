"""A Git server on the loopback, and what people and CI do with it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_WHO = ("-c", "user.name=A Developer", "-c", "user.email=developer@example.com", "-c", "init.defaultBranch=main")


def git(folder: Path, *words: str) -> str:
    """Run Git in a folder; returns what it prints."""
    return subprocess.run(["git", *_WHO, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def git_server(folder: Path) -> Iterator[str]:
    """Serve an empty repository, also for pushing; gives its address. The process ends with the block."""
    served = folder / "served"
    served.mkdir()
    git(served, "init", "--bare", "--quiet", "team.git")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    git_path = Path(git(served, "--exec-path").strip())
    flags = ["--listen=127.0.0.1", f"--port={port}", f"--base-path={served}", "--export-all", "--enable=receive-pack", "--reuseaddr"]
    server = subprocess.Popen([str(git_path / "git-daemon"), *flags, str(served)], stderr=subprocess.DEVNULL)
    try:
        _wait(server, port)
        yield f"git://127.0.0.1:{port}/team.git"
    finally:
        server.terminate()
        server.wait()


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + 20
    while True:
        assert server.poll() is None, "the server ended at once"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < end, "the server does not answer"
        time.sleep(0.05)
