"""Install ONNX Runtime Web from the npm registry into a folder: ``python -m tools.web.setup FOLDER [--version VERSION]``.

No script of any package is run. Quick when that version is there already.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.errors import ConverterError, UsageError
from runtime_tests.emulation.external import run_program
from tools.web.package import VERSION, Package, find_node, find_package

__all__ = ["install", "main"]

_VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?")


def install(folder: Path, version: str = VERSION) -> Package:
    """Install that version into a folder, which is made if missing.

    Raises:
        UsageError: Node or npm is missing, the folder cannot be made, or this is no version.
        ConverterError: npm fails.
    """
    if not _VERSION.fullmatch(version):
        raise UsageError(f"'{version}' is no version", where="--version", hint=f"give one such as {VERSION}")
    find_node()
    if (there := _installed(folder)) is not None and there.version == version:
        return there
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder cannot be made: {error.strerror}", where=str(folder), hint="name another one") from None
    words = [
        "npm",
        "install",
        "--prefix",
        str(folder.absolute()),
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        f"onnxruntime-web@{version}",
    ]
    run_program(words, "installing onnxruntime-web", hint="see whether the npm registry can be reached", install="npm")
    found = _installed(folder)
    if found is None or found.version != version:
        raise ConverterError("npm ended well, but the package is not there", where=str(folder), hint="name an empty folder")
    return found


def _installed(folder: Path) -> Package | None:
    try:
        return find_package(folder)
    except UsageError:
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Install; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.web.setup", description="Install ONNX Runtime Web (npm: onnxruntime-web) into a folder.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="for the package; made if missing")
    parser.add_argument("--version", default=VERSION, help=f"of the package (default {VERSION})")
    flags = parser.parse_args(arguments)
    package = install(flags.folder, flags.version)
    print_line(f"ready: ONNX Runtime Web {package.version} in {package.folder}")


if __name__ == "__main__":
    raise SystemExit(main())
