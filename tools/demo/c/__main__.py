"""Build the sample in C for this machine, and for the emulated ARM64 machine: ``python -m tools.demo.c FOLDER [--arm64]``."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from runtime_tests.emulation.environment import environment
from tools.demo.c.build import build, build_for_arm64, fetch_headers, install_cross_compiler

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.demo.c", description="Build the sample against ONNX Runtime's C API.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="for headers and programs; made if missing")
    parser.add_argument("--arm64", action="store_true", help="also for the machine of tools.arm64.setup; installs a compiler (as root)")
    flags = parser.parse_args(arguments)
    headers = fetch_headers(flags.folder)
    print_line(f"ready: {build(flags.folder / platform.machine(), headers)}")
    if flags.arm64:
        install_cross_compiler()
        print_line(f"ready: {build_for_arm64(flags.folder / 'arm64', headers, environment())}")


if __name__ == "__main__":
    raise SystemExit(main())
