"""Set up the emulated ARM64 machine: ``python -m tools.arm64.setup [--runtime VERSION] [--root DIR] [--cycles]``.

Quick when it is done already.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from runtime_tests.emulation.apt import install_package
from runtime_tests.emulation.environment import FOLDER_VARIABLE, RUNTIME_CHOICE, RUNTIMES, environment
from runtime_tests.emulation.setup import set_up
from tools.arm64.llvm import PACKAGE, is_installed, llvm_version

__all__ = ["install_llvm", "main"]


def install_llvm() -> str:
    """Install what estimates cycles, if it is not there; returns its version.

    Raises:
        UsageError: this is not Debian.
        ConverterError: apt failed.
    """
    if not is_installed():
        install_package(PACKAGE, "LLVM")
    return llvm_version()


def main(arguments: Sequence[str] | None = None) -> int:
    """Set up; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.arm64.setup", description="Set up the ARM64 emulation that counts instructions.")
    parser.add_argument("--root", type=Path, metavar="DIR", help=f"folder (default {FOLDER_VARIABLE}, else ~/.cache/bridgequant/arm64)")
    parser.add_argument("--runtime", metavar="VERSION", help=f"only this ONNX Runtime: {RUNTIME_CHOICE} (default all)")
    parser.add_argument("--cycles", action="store_true", help=f"also install {PACKAGE}, for python -m tools.arm64.cycles (as root)")
    flags = parser.parse_args(arguments)
    wanted = [flags.runtime] if flags.runtime is not None else list(RUNTIMES)
    machines = [environment(flags.root, runtime) for runtime in wanted]
    for env in machines:
        set_up(env, print_line)
        print_line(f"ready: ONNX Runtime {env.runtime} in {env.folder}")
    if flags.cycles:
        print_line(f"ready: LLVM {install_llvm()}")


if __name__ == "__main__":
    raise SystemExit(main())
