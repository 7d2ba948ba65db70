"""Where ONNX Runtime Web lies: the npm package ``onnxruntime-web`` in a folder that the user names."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from converter.errors import UsageError

__all__ = ["FOLDER_VARIABLE", "VERSION", "Package", "find_node", "find_package"]

FOLDER_VARIABLE = "BRIDGEQUANT_WEB"

VERSION = "1.30.0"
"""What ``python -m tools.web.setup`` installs unless told otherwise, and what the target ``web`` was fitted with."""


@dataclass(frozen=True)
class Package:
    """An installed package.

    Attributes:
        folder: that npm installed into.
        version: of the package.
    """

    folder: Path
    version: str

    @property
    def distribution(self) -> Path:
        """The scripts and the WebAssembly."""
        return self.folder / "node_modules" / "onnxruntime-web" / "dist"


def find_package(folder: Path | None = None) -> Package:
    """The package in a folder; by default in the one that ``BRIDGEQUANT_WEB`` names.

    Raises:
        UsageError: no folder was named, or there is no package in it.
    """
    hint = f"install it with python -m tools.web.setup FOLDER, and name FOLDER by --web or {FOLDER_VARIABLE}"
    given = folder or os.environ.get(FOLDER_VARIABLE)
    if not given:
        raise UsageError("the folder of onnxruntime-web is not known", where="--web", hint=hint)
    home = Path(given).expanduser().absolute()
    try:
        version = json.loads((home / "node_modules" / "onnxruntime-web" / "package.json").read_text())["version"]
    except (OSError, ValueError, KeyError):
        raise UsageError("there is no onnxruntime-web in this folder", where=str(home), hint=hint) from None
    return Package(home, str(version))


def find_node() -> str:
    """Path of Node.

    Raises:
        UsageError: there is none.
    """
    found = shutil.which("node")
    if found is None:
        raise UsageError("the program 'node' is missing", where="ONNX Runtime Web", hint="install it (apt-get install nodejs npm)")
    return found
