"""What a device says of itself: its name, its cores and their governors, its temperatures. Linux and Android only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converter.errors import ConverterError, UsageError
from tools.device_bench.transport import Transport

__all__ = ["SCRIPT", "Core", "State", "core_mask", "fastest_cores", "read_state"]

SCRIPT = r"""
read_file() { cat "$root$1" 2>/dev/null | tr -d '\000' | head -n 1; }
root=$1
echo "kernel|$(uname -sr)"
echo "board|$(read_file /proc/device-tree/model)"
command -v getprop >/dev/null && echo "phone|$(getprop ro.product.manufacturer) $(getprop ro.product.model)"
echo "processor|$(sed -n 's/^model name[^:]*: //p' "$root/proc/cpuinfo" 2>/dev/null | head -n 1)"
echo "allowed|$(sed -n 's/^Cpus_allowed_list:[^0-9]*//p' "$root/proc/self/status" 2>/dev/null)"
for core in "$root"/sys/devices/system/cpu/cpu[0-9]*; do
  path=${core#"$root"}
  capacity=$(read_file "$path/cpu_capacity"); fastest=$(read_file "$path/cpufreq/cpuinfo_max_freq")
  echo "core|${path##*/cpu}|$capacity|$fastest|$(read_file "$path/cpufreq/scaling_cur_freq")|$(read_file "$path/cpufreq/scaling_governor")"
done
for zone in "$root"/sys/class/thermal/thermal_zone*; do
  path=${zone#"$root"}
  echo "zone|${path##*/thermal_zone}|$(read_file "$path/type")|$(read_file "$path/temp")"
done
"""
"""Lines of a word and values; a value that the kernel does not tell is empty."""


@dataclass(frozen=True)
class Core:
    """One core; None where the kernel does not tell.

    Attributes:
        number: that Linux gives it.
        capacity: in proportion to the fastest core's, which has 1024.
        fastest_khz: highest clock rate.
        now_khz: clock rate at the moment.
        governor: what sets the clock rate.
    """

    number: int
    capacity: int | None
    fastest_khz: int | None
    now_khz: int | None
    governor: str | None


@dataclass(frozen=True)
class State:
    """A device at one moment.

    Attributes:
        name: of the board, the phone or the processor; empty if nothing tells.
        kernel: its name and release.
        cores: those on which a command may run.
        celsius: temperatures by the name of the place, such as ``cpu-thermal``.
    """

    name: str
    kernel: str
    cores: tuple[Core, ...]
    celsius: dict[str, float]


def read_state(device: Transport, root: str = "") -> State:
    """Ask a device.

    Args:
        root: in front of the paths of the kernel's files, for tests.
    """
    lines = [line.split("|") for line in device.run(["sh", "-c", SCRIPT, "state", root]).splitlines() if "|" in line]
    single = {words[0]: words[1].strip() for words in lines if len(words) == 2}
    name = single.get("board") or single.get("phone") or single.get("processor") or ""
    allowed = _numbers(single.get("allowed", ""))
    cores = sorted((_core(words) for words in lines if words[0] == "core" and words[1].isdigit()), key=lambda core: core.number)
    zones = [(words[1], words[2], _whole(words[3])) for words in lines if words[0] == "zone" and len(words) == 4]
    kinds = [kind for _, kind, _ in zones]
    celsius = {
        (kind if kinds.count(kind) == 1 and kind else f"{kind or 'zone'} {number}"): value / 1000.0
        for number, kind, value in zones
        if value is not None
    }
    return State(name, single.get("kernel", ""), tuple(core for core in cores if not allowed or core.number in allowed), celsius)


def _core(words: Sequence[str]) -> Core:
    number, capacity, fastest, now = (_whole(word) for word in words[1:5])
    assert number is not None
    return Core(number, capacity, fastest, now, words[5].strip() or None)


def _whole(word: str) -> int | None:
    word = word.strip()
    return int(word) if word.removeprefix("-").isdigit() else None


def _numbers(ranges: str) -> set[int]:
    """Of a list of the kernel's, such as ``0-3,6``."""
    found: set[int] = set()
    for part in ranges.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit():
            found |= set(range(int(first), int(last or first) + 1))
    return found


def fastest_cores(cores: Sequence[Core], count: int) -> tuple[int, ...]:
    """The numbers of the fastest cores, by capacity, then clock rate; of equal ones the last, as the first serves interrupts.

    Raises:
        ConverterError: the device names too few.
    """
    if len(cores) < count:
        what = f"the device lets commands run on {len(cores)} cores, not on {count}"
        raise ConverterError(what, where="--threads", hint="ask for fewer, or give --cores none")
    order = sorted(cores, key=lambda core: (core.capacity or 0, core.fastest_khz or 0, core.number))
    return tuple(sorted(core.number for core in order[-count:]))


def core_mask(cores: Sequence[int]) -> str:
    """Cores as ``taskset`` takes them, both of Linux and of Android: a mask in hexadecimal digits.

    Raises:
        UsageError: there are none.
    """
    if not cores or min(cores) < 0:
        raise UsageError("there are no such cores", where="--cores", hint="give numbers, such as 4,5")
    return f"{sum(1 << core for core in set(cores)):x}"
