"""The cores that can be emulated: what the emulator makes of them, and what Linux says of them to a program that asks.

ONNX Runtime chooses kernels by the instructions that a core offers, and some by the core's name, which it reads from ``/proc/cpuinfo``
(cpuinfo, src/arm/linux): narrow loads on Cortex-A53 and A55, for example. From 1.28 on it cannot live with the files of a machine
that is no ARM64 one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from converter.errors import UsageError

__all__ = ["CORES", "PROCESSOR", "Core", "check_core", "short_name", "system_files"]

PROCESSOR = 0
"""The only one that the files describe. The runtime asks on which it runs, so that the guest has to stay on it."""

_OLD = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
_DOT = f"{_OLD} atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
_NEW = f"{_DOT} sve asimdfhm sve2 svei8mm svebf16 i8mm bf16"


@dataclass(frozen=True)
class Core:
    """One core.

    Attributes:
        emulated: the emulator's ``-cpu``.
        part: of Arm Limited, in hexadecimal (Linux, arch/arm64/include/asm/cputype.h).
        features: optional instructions, as Linux writes them.
        words: what sets the core apart for the runtime.
    """

    emulated: str
    part: str
    features: str
    words: str


_WIDE = "max,sme=off"
_NARROW = "sve-default-vector-length=16"
_STREAMING = "sme-default-vector-length=64"

CORES: Mapping[str, Core] = {
    "cortex-a53": Core("cortex-a53", "0xd03", _OLD, "ARMv8.0: neither dot product nor half precision; a little core"),
    "cortex-a72": Core("cortex-a72", "0xd08", _OLD, "ARMv8.0, as cortex-a53; a big core"),
    # the emulator has none of its own; what an A55 offers beyond ARMv8.2 and an A76 does not, no kernel asks for
    "cortex-a55": Core("cortex-a76", "0xd05", _DOT, "ARMv8.2: int8 dot product, half precision; a little core"),
    "cortex-a76": Core("cortex-a76", "0xd0b", _DOT, "ARMv8.2, as cortex-a55; a big core"),
    "neoverse-n1": Core("neoverse-n1", "0xd0c", _DOT, "ARMv8.2, as cortex-a76"),
    "max-sve128": Core(f"{_WIDE},{_NARROW}", "0xd47", _NEW, "int8 matrix product, bf16, SVE2 of 128 bits: Cortex-A710 and newer"),
    "max-sme": Core(f"max,{_NARROW},{_STREAMING}", "0xd47", f"{_NEW} sme", "the same with SME of 512 bits"),
    "max,sme=off": Core(_WIDE, "0xd47", _NEW, "as max-sve128 with SVE2 of 512 bits, which no phone has"),
    "max": Core("max", "0xd47", f"{_NEW} sme", "all the emulator has: SVE2 of 512 bits, SME of 256"),
}
"""Cores that can be asked for. Those of the emulator that are called ``max`` answer as a Cortex-A710."""

_JOINED = str.maketrans(",=-", "___")


def short_name(core: str) -> str:
    """A core as the names of figures have it: ``a76`` for ``cortex-a76``, ``max_sme_off`` for ``max,sme=off``."""
    return core.removeprefix("cortex-").removeprefix("neoverse-").translate(_JOINED)


def check_core(core: str) -> str:
    """Return the core's name.

    Raises:
        UsageError: it is not one of :data:`CORES`.
    """
    if core not in CORES:
        raise UsageError(f"core '{core}' is not known", where="--core", hint=f"choose from: {'; '.join(CORES)}")
    return core


def system_files(core: str) -> dict[str, str]:
    """What Linux says about a machine that has this core alone: text by absolute path.

    Files that the runtime looks for and that say nothing are here too, empty: the guest would be given this machine's instead.
    """
    found = CORES[core]
    cpu = "/sys/devices/system/cpu"
    lists = dict.fromkeys((f"{cpu}/{name}" for name in ("kernel_max", "possible", "present", "online")), f"{PROCESSOR}\n")
    clock = [f"cpufreq/cpuinfo_{end}_freq" for end in ("max", "min")]
    siblings = ("cluster_cpus", "core_cpus", "core_siblings", "package_cpus", "thread_siblings")
    topology = [f"topology/{name}_list" for name in siblings] + ["topology/physical_package_id", "topology/core_id"]
    caches = [f"cache/index{index}/{name}" for index in range(5) for name in ("level", "size", "type", "shared_cpu_list")]
    identification = ["regs/identification/midr_el1"]
    silent = [f"{cpu}/cpu{PROCESSOR}/{name}" for name in (*clock, *topology, *caches, *identification)]
    return {"/proc/cpuinfo": _cpuinfo(found), **lists, **dict.fromkeys(silent, "")}


def _cpuinfo(core: Core) -> str:
    rows = {
        "processor": str(PROCESSOR),
        "BogoMIPS": "50.00",
        "Features": core.features,
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": "0x1",
        "CPU part": core.part,
        "CPU revision": "0",
    }
    return "".join(f"{name}\t: {text}\n" for name, text in rows.items()) + "\n"
