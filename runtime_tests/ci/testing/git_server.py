"""A Git server on the loopback, and what people and CI do with it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from runtime_tests.testing.servers import free_port, running_server

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
    port = free_port()
    git_path = Path(git(served, "--exec-path").strip())
    flags = ["--listen=127.0.0.1", f"--port={port}", f"--base-path={served}", "--export-all", "--enable=receive-pack", "--reuseaddr"]
    with running_server([str(git_path / "git-daemon"), *flags, str(served)], port):
        yield f"git://127.0.0.1:{port}/team.git"
