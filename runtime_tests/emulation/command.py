"""The command line of the emulated machine, and what the guest sees: its environment and its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runtime_tests.emulation.cores import CORES, PROCESSOR, system_files
from runtime_tests.emulation.environment import Environment

__all__ = ["EMULATOR", "command_line", "guest_variables", "lay_out_root"]

EMULATOR = "qemu-aarch64"


def guest_variables(env: Environment) -> dict[str, str]:
    """The guest's whole environment: the same on every machine, so that counts are, too."""
    return {
        "HOME": "/",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(env.site),
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",  # a second thread would be counted along
        "ORT_DISABLE_TELEMETRY": "1",  # the same: newer runtimes report from a thread of their own
    }


def lay_out_root(env: Environment, core: str, folder: Path) -> Path:
    """Fill a new folder with what the guest finds below ``/``: the unpacked packages, and what the system says about the core.

    The emulator looks there first for every absolute path, and only then on this machine.
    """
    folder.mkdir()
    for entry in sorted(env.root.iterdir()):
        (folder / entry.name).symlink_to(entry)
    for path, text in system_files(core).items():
        file = folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def command_line(env: Environment, core: str, root: Path, marks: Path, arguments: Sequence[str], blocks: Path | None = None) -> list[str]:
    """The emulator's command line: the guest's interpreter with ``arguments``; marks go to a file.

    Args:
        root: of :func:`lay_out_root`.
        blocks: file for the executions of each block; none are counted without it.
    """
    pinned = ["taskset", "--cpu-list", str(PROCESSOR)]
    emulated = [EMULATOR, "-L", str(root), "-cpu", CORES[core].emulated, "-plugin", f"{env.plugin},out={marks}"]
    if blocks is not None:
        emulated += ["-plugin", f"{env.blocks_plugin},out={blocks}"]
    return [*pinned, *emulated, str(env.python), "-S", *arguments]
