"""The machine: its processor and those of its instruction sets that integer kernels of the runtime ask for."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

__all__ = ["X86", "Machine", "this_machine"]

X86 = ("x86_64", "AMD64")
"""What ``platform.machine`` calls it, on Linux and on Windows."""

_CPUINFO = Path("/proc/cpuinfo")

_LINUX: Mapping[str, str] = MappingProxyType(
    {
        **{name: name for name in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")},
        **{"asimddp": "dotprod", "i8mm": "i8mm", "sve": "sve", "sme": "sme"},
    }
)
"""What Linux lists as flags (x86) or features (ARM), and the name here; Linux, arch/x86/kernel/cpu and Documentation/arch/arm64."""

_MACOS: Mapping[str, str] = MappingProxyType({"FEAT_DotProd": "dotprod", "FEAT_I8MM": "i8mm", "FEAT_SME": "sme"})
"""Below ``hw.optional.arm`` of sysctl."""

_LITTLE_CORES = ("0xd05",)
"""CPU parts that Linux lists of cores with kernels of their own: Cortex-A55."""


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        architecture: as ``platform.machine`` calls it.
        processor: its name, as the system gives it; empty if it does not.
        cores: that this process may run on.
        instruction_sets: those that integer kernels ask for; None where the system does not tell.
        little: all of its cores are in-order ones with kernels of their own.
    """

    architecture: str
    processor: str
    cores: int
    instruction_sets: tuple[str, ...] | None
    little: bool = False


def this_machine() -> Machine:
    """Ask the system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if _CPUINFO.exists():
        return read_cpuinfo(_CPUINFO.read_text(errors="replace"), platform.machine(), cores)
    if platform.system() == "Darwin":
        return read_sysctl(_sysctl, platform.machine(), cores)
    return Machine(platform.machine(), platform.processor(), cores, None)


def read_cpuinfo(text: str, architecture: str, cores: int) -> Machine:
    """What Linux writes into ``/proc/cpuinfo``."""
    entries: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        entries.setdefault(name.strip(), []).append(value.strip())
    listed = entries.get("flags") or entries.get("Features")
    known = set(listed[0].split()) if listed else set()
    found = tuple(dict.fromkeys(name for flag, name in _LINUX.items() if flag in known))
    parts = entries.get("CPU part", [])
    little = bool(parts) and set(parts) <= set(_LITTLE_CORES)
    return Machine(architecture, (entries.get("model name") or [""])[0], cores, found if listed else None, little)


def read_sysctl(ask: Callable[[str], str], architecture: str, cores: int) -> Machine:
    """What macOS answers.

    Args:
        ask: gives the value of a name, or an empty text if there is none of that name.
    """
    names = {f"hw.optional.arm.{feature}": name for feature, name in _MACOS.items()} | {"hw.optional.avx2_0": "avx2"}
    found = tuple(name for key, name in names.items() if ask(key) == "1")
    return Machine(architecture, ask("machdep.cpu.brand_string"), cores, found)


def _sysctl(name: str) -> str:
    done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
