"""Set up the emulated ARM64 machine: ``python -m tools.arm64.setup [--runtime VERSION] [--root DIR]``. Quick when it is done already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from runtime_tests.emulation.environment import FOLDER_VARIABLE, RUNTIME_CHOICE, RUNTIMES, environment
from runtime_tests.emulation.setup import set_up

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Set up; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.arm64.setup", description="Set up the ARM64 emulation that counts instructions.")
    parser.add_argument("--root", type=Path, metavar="DIR", help=f"folder (default {FOLDER_VARIABLE}, else ~/.cache/bridgequant/arm64)")
    parser.add_argument("--runtime", metavar="VERSION", help=f"only this ONNX Runtime: {RUNTIME_CHOICE} (default all)")
    flags = parser.parse_args(arguments)
    wanted = [flags.runtime] if flags.runtime is not None else list(RUNTIMES)
    machines = [environment(flags.root, runtime) for runtime in wanted]
    for env in machines:
        set_up(env, print_line)
        print_line(f"ready: ONNX Runtime {env.runtime} in {env.folder}")


if __name__ == "__main__":
    raise SystemExit(main())
