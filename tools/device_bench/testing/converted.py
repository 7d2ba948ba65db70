"""A small model and what was converted from it, as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Converted:
    """The float model, its int8 form for ARM64, and the plan of that."""

    floats: Path
    int8: Path
    plan: Path
