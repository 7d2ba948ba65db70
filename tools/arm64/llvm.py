"""Cycles of blocks of ARM64 instructions, by LLVM's machine code analyser ``llvm-mca``.

The analyser simulates a core's dispatch, ports, latencies and buffers on a block that is repeated, each repetition after the
other. It knows neither caches (a load takes what a hit in the first level takes) nor how branches are predicted (they always
are, and rightly).
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.errors import ConverterError, UsageError
from runtime_tests.emulation.blocks import INSTRUCTION_BYTES
from runtime_tests.emulation.external import run_program

__all__ = [
    "CALL_LATENCY",
    "CORE_MODELS",
    "ITERATIONS",
    "PACKAGE",
    "CoreModel",
    "check_modelled",
    "disassembled",
    "is_installed",
    "judged",
    "llvm_version",
]

RELEASE = 19
"""Of LLVM, in Debian 12. Its plain ``llvm`` is 14, which simulates a Cortex-A57 when asked for a Neoverse-N1."""

PACKAGE = f"llvm-{RELEASE}"
ITERATIONS = 100

CALL_LATENCY = 1
"""Cycles of a call itself: what is called consists of blocks of its own. The analyser would take it for 100."""

_DISASSEMBLER, _ANALYSER = f"llvm-mc-{RELEASE}", f"llvm-mca-{RELEASE}"
_HINT = "install it: python -m tools.arm64.setup --cycles, or apt-get install " + PACKAGE
_FAILED = f"see whether the package {PACKAGE} is whole"
_ENCODED = re.compile(r"\s*(.*?)\s*// encoding: \[([0-9a-fx,]+)\]")
_REGIONS = 500
"""Blocks in one run of the analyser."""


@dataclass(frozen=True)
class CoreModel:
    """How a core is simulated.

    Attributes:
        processor: LLVM's ``-mcpu``.
        decoded: instructions that the core decodes in a cycle, which the analyser does not know.
    """

    processor: str
    decoded: int


CORE_MODELS: Mapping[str, CoreModel] = {
    # the same core for servers: "Arm Neoverse N1 Software Optimization Guide"; LLVM has no model of the A76 itself
    "cortex-a76": CoreModel("neoverse-n1", 4),
    "cortex-a55": CoreModel("cortex-a55", 2),
}
"""Cores whose cycles can be asked for."""


def check_modelled(core: str) -> CoreModel:
    """The model of a core.

    Raises:
        UsageError: there is none.
    """
    if core not in CORE_MODELS:
        raise UsageError(f"there is no model of the cycles of core '{core}'", where="--core", hint=f"choose from: {'; '.join(CORE_MODELS)}")
    return CORE_MODELS[core]


def is_installed() -> bool:
    """Whether all programs are there."""
    return all(shutil.which(program) for program in (_DISASSEMBLER, _ANALYSER))


def llvm_version() -> str:
    """Version of the programs, as ``19.1.7``.

    Raises:
        UsageError: one of them is missing; says how to install them.
    """
    if not is_installed():
        raise UsageError(f"LLVM {RELEASE} is not installed", where=f"{_DISASSEMBLER}, {_ANALYSER}", hint=_HINT)
    versions = set()
    for program in (_DISASSEMBLER, _ANALYSER):
        answer = run_program([program, "--version"], "cycles", hint=_FAILED)
        found = re.search(r"LLVM version (\S+)", answer)
        if found is None:
            raise ConverterError(f"'{program}' does not say which version it is", where=answer.partition("\n")[0], hint=_FAILED)
        versions.add(found[1])
    if len(versions) > 1:
        raise ConverterError(f"the programs have different versions: {', '.join(sorted(versions))}", hint=_FAILED)
    return versions.pop()


def disassembled(instructions: Iterable[bytes], processor: str) -> dict[bytes, str]:
    """Instructions as text for the analyser, by their 4 bytes; those that the processor does not have are left out.

    Args:
        processor: LLVM's ``-mcpu``.
    """
    with tempfile.TemporaryDirectory(prefix="cycles-") as folder:
        path = Path(folder, "instructions.txt")
        path.write_text("".join(" ".join(f"0x{byte:02x}" for byte in word) + "\n" for word in sorted(set(instructions))))
        command = [_DISASSEMBLER, "--disassemble", "--triple=aarch64", f"--mcpu={processor}", "--show-encoding", str(path)]
        answer = run_program(command, "disassembling blocks", hint=_FAILED)
    # an instruction that is no such one becomes a warning, and no line
    found = (_ENCODED.match(line) for line in answer.splitlines())
    return {bytes(int(byte, 16) for byte in match[2].split(",")): match[1] for match in found if match}


def judged(codes: Iterable[bytes], core: str) -> dict[bytes, float]:
    """Cycles of one execution of each block, of many one after the other. Blocks that LLVM does not understand are left out.

    Args:
        codes: of blocks, in the order of memory.
        core: one of :data:`CORE_MODELS`.

    Raises:
        ConverterError: LLVM failed.
    """
    model = check_modelled(core)
    blocks = {code: _words(code) for code in codes}
    texts = disassembled((word for words in blocks.values() for word in words), model.processor)
    known = [code for code, words in blocks.items() if all(word in texts for word in words)]
    found: dict[bytes, float] = {}
    for first in range(0, len(known), _REGIONS):
        part = known[first : first + _REGIONS]
        cycles = _analysed([[texts[word] for word in blocks[code]] for code in part], model.processor)
        for place, taken in cycles.items():
            found[part[place]] = max(taken, len(blocks[part[place]]) / model.decoded)
    return found


def _words(code: bytes) -> list[bytes]:
    return [code[place : place + INSTRUCTION_BYTES] for place in range(0, len(code), INSTRUCTION_BYTES)]


def _analysed(blocks: Sequence[Sequence[str]], processor: str) -> dict[int, float]:
    """Cycles of one repetition by the block's place; without those of which the analyser left instructions out."""
    with tempfile.TemporaryDirectory(prefix="cycles-") as folder:
        path = Path(folder, "blocks.s")
        path.write_text("".join(_region(place, lines) for place, lines in enumerate(blocks)))
        command = [_ANALYSER, "--mtriple=aarch64", f"--mcpu={processor}", f"--iterations={ITERATIONS}", f"--call-latency={CALL_LATENCY}"]
        command += ["--json", "--all-views=false", "--summary-view", "--skip-unsupported-instructions=any", str(path)]
        answer = run_program(command, "judging blocks", hint=_FAILED)
    summaries = {int(region["Name"]): region["SummaryView"] for region in json.loads(answer)["CodeRegions"]}
    whole = {place: each for place, each in summaries.items() if each["Instructions"] == ITERATIONS * len(blocks[place])}
    return {place: each["TotalCycles"] / ITERATIONS for place, each in whole.items()}


def _region(place: int, lines: Sequence[str]) -> str:
    return f"# LLVM-MCA-BEGIN {place}\n" + "\n".join(lines) + "\n# LLVM-MCA-END\n"
