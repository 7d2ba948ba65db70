"""Debian packages: installed on this machine, or only fetched, into a folder of their own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from converter.errors import ConverterError
from runtime_tests.emulation.external import run_program

__all__ = ["apt_in", "install_package"]


def install_package(package: str, what: str) -> None:
    """Install a Debian package on this machine; needs root.

    Args:
        package: its name.
        what: what it is for, as in "the emulator".

    Raises:
        UsageError: this is not Debian.
        ConverterError: apt failed.
    """
    command = ["apt-get", "install", "--yes", "--no-install-recommends", package]
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    hint = f"apt-get install {package}, as root"
    try:
        run_program(command, f"installing {what}", hint=hint, variables=quiet)
    except ConverterError:  # on a machine that has not asked for the lists of packages yet
        run_program(["apt-get", "update"], "fetching the lists of packages", hint=hint)
        run_program(command, f"installing {what}", hint=hint, variables=quiet)


def apt_in(folder: Path, *, architecture: str | None = None, source: str | None = None) -> list[str]:
    """The first words of an apt-get command that fetches as for an empty machine, with all that it keeps in a folder; installs nothing.

    Args:
        folder: absolute; emptied first, as packages of an earlier day would be taken along. Packages go to ``archives``.
        architecture: of the packages; by default this machine's.
        source: a line of ``sources.list`` to take them from; by default this machine's sources.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True)
    (folder / "status").write_text("")
    settings = {
        "APT::Sandbox::User": "root",  # another user might not be let into the folder
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Dir::State::lists": f"{folder}/lists",
        "Dir::State::status": f"{folder}/status",
        "Dir::State::extended_states": f"{folder}/extended",
        "Dir::Cache::archives": f"{folder}/archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
    }
    if architecture is not None:
        settings |= {"APT::Architecture": architecture, "APT::Architectures": architecture}
    if source is not None:
        (folder / "sources.list").write_text(f"{source}\n")
        settings |= {"Dir::Etc::sourcelist": f"{folder}/sources.list", "Dir::Etc::sourceparts": "/dev/null"}
    return ["apt-get", "--quiet", "--yes", *(f"--option={key}={value}" for key, value in settings.items())]
