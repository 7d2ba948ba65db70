"""Which state of this project a row was measured with."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["described_tree"]


def described_tree() -> str:
    """The commit as git describes it, with ``-dirty`` where files differ from it; empty outside of a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
