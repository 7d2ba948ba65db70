"""Where the emulated machine lies, and what it consists of."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER_VARIABLE", "Environment", "environment"]

FOLDER_VARIABLE = "BRIDGEQUANT_ARM64"


@dataclass(frozen=True)
class Environment:
    """The folder that ``python -m tools.arm64.setup`` fills, and the paths in it."""

    folder: Path

    @property
    def root(self) -> Path:
        """Unpacked Debian packages: what the guest sees below ``/``."""
        return self.folder / "root"

    @property
    def python(self) -> Path:
        """The guest's interpreter."""
        return self.root / "usr" / "bin" / "python3.11"

    @property
    def site(self) -> Path:
        """The guest's Python packages."""
        return self.folder / "site"

    @property
    def plugin(self) -> Path:
        """The counting plugin, for this machine."""
        return self.folder / "plugin" / "count.so"

    @property
    def stamps(self) -> Path:
        """One file for each step of the set-up that is done."""
        return self.folder / "stamps"


def environment(folder: Path | None = None) -> Environment:
    """The environment in a folder; by default the one in ``BRIDGEQUANT_ARM64``, else in ``~/.cache/bridgequant/arm64``."""
    given = folder or os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "bridgequant" / "arm64"
    return Environment(Path(given).expanduser().absolute())
