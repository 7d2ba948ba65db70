"""Versions of ONNX Runtime side by side: one folder for each, as pip's ``--target`` leaves it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packaging.version import InvalidVersion, Version

from converter.errors import UsageError
from runtime_tests.emulation.external import run_program

__all__ = ["OLDEST", "install", "installed", "last_of_each_minor", "published", "requirements"]

OLDEST = Version("1.17")
"""From here on every minor version is looked at."""

_FIRST_WITH_NUMPY_2 = Version("1.19")
"""Older ones were built against NumPy 1, and do not import beside NumPy 2."""

_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
_OFFLINE = "see whether the package index can be reached, or give --wheels a folder that has the versions"


def installed(folder: Path) -> dict[Version, Path]:
    """The versions that a folder holds, the oldest first."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            version = Version(path.name)
        except InvalidVersion:
            continue
        if (path / "onnxruntime").is_dir():
            found[version] = path
    return dict(sorted(found.items()))


def published() -> list[Version]:
    """The versions that the package index has for this Python.

    Raises:
        ConverterError: pip cannot tell.
    """
    text = run_program([*_PIP, "index", "versions", "onnxruntime", "--json"], "asking pip for versions of onnxruntime", hint=_OFFLINE)
    return [Version(v) for v in json.loads(text)["versions"]]


def last_of_each_minor(versions: Iterable[Version]) -> list[Version]:
    """The last release of every minor version from :data:`OLDEST` on, the oldest first."""
    newest: dict[tuple[int, int], Version] = {}
    for version in sorted(versions):
        if version >= OLDEST and not version.is_prerelease:
            newest[version.major, version.minor] = version
    return list(newest.values())


def requirements(version: Version) -> list[str]:
    """What pip is to put into the folder of a version."""
    return [f"onnxruntime=={version}", *(["numpy<2"] if version < _FIRST_WITH_NUMPY_2 else [])]


def install(folder: Path, versions: Sequence[Version]) -> Mapping[Version, Path]:
    """Have pip put the versions that are missing into a folder, each into one of its own, which appears when it is complete.

    Raises:
        ConverterError: pip cannot; versions that were complete before stay.
        UsageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for version in versions:
            if version in installed(folder):
                continue
            sys.stderr.write(f"installing onnxruntime {version}\n")
            with tempfile.TemporaryDirectory(prefix="incomplete-", dir=folder) as name:
                made = Path(name) / str(version)
                command = [*_PIP, "install", "--quiet", "--no-deps", "--target", str(made), *requirements(version)]
                run_program(command, f"installing onnxruntime {version}", hint=_OFFLINE)
                os.rename(made, folder / str(version))
    except OSError as error:
        raise UsageError(f"cannot write there: {error.strerror}", where=f"--wheels {folder}", hint="choose another folder") from None
    return installed(folder)
