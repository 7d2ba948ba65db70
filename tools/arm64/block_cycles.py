"""Cycles of what was executed: the sum over blocks of executions times what one execution costs.

What a block costs is kept on disk, so that the second model on a core takes a fraction of the first one's time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from converter.errors import ConverterError
from converter.load.files import write_files
from runtime_tests.emulation.blocks import INSTRUCTION_BYTES, Blocks, instructions_of
from tools.arm64.llvm import ITERATIONS, check_modelled, judged, llvm_version

__all__ = ["SHARE", "Cycles", "block_costs", "cycles_of", "hottest"]

SHARE = 0.99
"""Of the executed instructions, in the blocks that are judged. The others are many, and take the mean cost of an instruction."""


@dataclass(frozen=True)
class Cycles:
    """What a region takes.

    Attributes:
        instructions: executed.
        cycles: that they take, as far as is known.
        judged: instructions in blocks that were judged one by one.
    """

    instructions: int
    cycles: float
    judged: int


def hottest(blocks: Blocks, share: float = SHARE) -> list[bytes]:
    """The fewest blocks that have at least this share of the executed instructions, the one with the most first."""
    wanted = share * instructions_of(blocks)
    chosen: list[bytes] = []
    for code in sorted(blocks, key=lambda code: (-len(code) * blocks[code], code)):
        if wanted <= 0:
            break
        chosen.append(code)
        wanted -= len(code) // INSTRUCTION_BYTES * blocks[code]
    return chosen


def cycles_of(blocks: Blocks, costs: Mapping[bytes, float]) -> Cycles:
    """Cycles of a region; blocks that are not among the hottest or have no cost take the mean of the others.

    Args:
        blocks: executed in the region.
        costs: cycles of one execution of a block.

    Raises:
        ConverterError: none of the hottest blocks has a cost.
    """
    known = {code: blocks[code] for code in hottest(blocks) if code in costs}
    everything, found = instructions_of(blocks), instructions_of(known)
    if everything and not found:
        raise ConverterError("none of the blocks that were executed has a cost", where=f"{len(blocks)} blocks")
    cycles = sum(costs[code] * executions for code, executions in known.items())
    return Cycles(everything, cycles * everything / found if found else 0.0, found)


def block_costs(regions: Iterable[Blocks], core: str, folder: Path) -> dict[bytes, float]:
    """Cycles of one execution of each of the hottest blocks of each region, from the disk or judged now.

    Args:
        regions: what was executed.
        core: one of :data:`tools.arm64.llvm.CORE_MODELS`.
        folder: where costs are kept, in a file for each model of a core and version of LLVM. Blocks without a cost are
            kept, too.

    Raises:
        UsageError: LLVM is not there, or the folder cannot be written.
        ConverterError: LLVM failed.
    """
    file = folder / f"{check_modelled(core).processor}-llvm{llvm_version()}-{ITERATIONS}.txt"
    kept = _read(file)
    wanted = sorted({code for blocks in regions for code in hottest(blocks)})
    new = [code for code in wanted if code not in kept]
    if new:
        found = judged(new, core)
        kept |= {code: found.get(code) for code in new}
        folder.mkdir(parents=True, exist_ok=True)
        write_files({file: _text(kept).encode()})
    return {code: cost for code in wanted if (cost := kept[code]) is not None}


def _read(file: Path) -> dict[bytes, float | None]:
    if not file.exists():
        return {}
    rows = (line.split() for line in file.read_text().splitlines())
    return {bytes.fromhex(code): None if cost == "none" else float(cost) for code, cost in rows}


def _text(costs: Mapping[bytes, float | None]) -> str:
    return "".join(f"{code.hex()} {'none' if cost is None else cost}\n" for code, cost in sorted(costs.items()))
