"""Where the emulated machine lies, which ONNX Runtime it has, and what it consists of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from converter.errors import UsageError

__all__ = ["FOLDER_VARIABLE", "NEWEST", "OLDEST", "RUNTIMES", "RUNTIME_CHOICE", "Environment", "environment", "runtime_version"]

FOLDER_VARIABLE = "BRIDGEQUANT_ARM64"

OLDEST, NEWEST = "1.23.2", "1.32.0"
"""ONNX Runtimes that are counted with. What users install is the newest; many devices have an older one."""

RUNTIMES: Mapping[str, str] = {"oldest": OLDEST, "newest": NEWEST}

RUNTIME_CHOICE = " | ".join(f"{word} ({version})" for word, version in RUNTIMES.items())
"""For messages."""


@dataclass(frozen=True)
class Environment:
    """The folder that ``python -m tools.arm64.setup`` fills, and the paths in it for one version of the runtime."""

    folder: Path
    runtime: str = NEWEST

    @property
    def root(self) -> Path:
        """Unpacked Debian packages: most of what the guest sees below ``/``."""
        return self.folder / "root"

    @property
    def python(self) -> Path:
        """The guest's interpreter."""
        return self.root / "usr" / "bin" / "python3.11"

    @property
    def site(self) -> Path:
        """The guest's Python packages."""
        return self.folder / f"site-{self.runtime}"

    @property
    def plugin(self) -> Path:
        """The counting plugin, for this machine."""
        return self.folder / "plugin" / "count.so"

    @property
    def blocks_plugin(self) -> Path:
        """The plugin that counts blocks, for this machine."""
        return self.folder / "plugin-blocks" / "blocks.so"

    @property
    def costs(self) -> Path:
        """Folder of what blocks of instructions cost, made as it is filled."""
        return self.folder / "costs"

    @property
    def stamps(self) -> Path:
        """One file for each step of the set-up that is done."""
        return self.folder / "stamps"


def runtime_version(name: str) -> str:
    """The version of a runtime that was asked for by its version, or as ``oldest`` or ``newest``.

    Raises:
        UsageError: there is none of that name.
    """
    version = RUNTIMES.get(name, name)
    if version not in RUNTIMES.values():
        raise UsageError(f"there is no emulated ONNX Runtime '{name}'", where="--runtime", hint=f"choose from: {RUNTIME_CHOICE}")
    return version


def environment(folder: Path | None = None, runtime: str = NEWEST) -> Environment:
    """The environment in a folder; by default the one in ``BRIDGEQUANT_ARM64``, else in ``~/.cache/bridgequant/arm64``.

    Args:
        runtime: a version, or one of :data:`RUNTIMES`.

    Raises:
        UsageError: there is no such runtime.
    """
    given = folder or os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "bridgequant" / "arm64"
    return Environment(Path(given).expanduser().absolute(), runtime_version(runtime))
