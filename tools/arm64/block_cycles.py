"""Cycles of what was executed: the sum over blocks of executions times what one execution costs.

What a block costs is kept on disk, so that the second model on a core takes a fraction of the first one's time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.errors import ConverterError, UsageError
from converter.load.files import write_files
from runtime_tests.emulation.blocks import INSTRUCTION_BYTES, Blocks, instructions_of
from tools.arm64.llvm import CALL_LATENCY, ITERATIONS, check_modelled, judged, llvm_version

__all__ = ["SHARE", "Costs", "Cycles", "block_costs", "cycles_of", "hottest"]

Costs = Mapping[bytes, float | None]
"""Cycles of one execution of a block; None where the block was not understood."""

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


def hottest(blocks: Blocks, costs: Costs) -> list[bytes]:
    """The fewest blocks that have at least :data:`SHARE` of the executed instructions, the one with the most first.

    Args:
        blocks: executed in a region.
        costs: as far as they are known. Blocks that were not understood are passed over.
    """
    wanted = SHARE * instructions_of(blocks)
    chosen: list[bytes] = []
    for code in sorted(blocks, key=lambda code: (-len(code) * blocks[code], code)):
        if wanted <= 0:
            break
        if code not in costs or costs[code] is not None:
            chosen.append(code)
            wanted -= len(code) // INSTRUCTION_BYTES * blocks[code]
    return chosen


def cycles_of(blocks: Blocks, costs: Costs) -> Cycles:
    """Cycles of a region; blocks that are not among the hottest take the mean of these by their instructions.

    Args:
        blocks: executed in the region.
        costs: of the hottest blocks and of any others, which does not change the result.

    Raises:
        ConverterError: no block was understood.
    """
    known = {code: cost for code in hottest(blocks, costs) if (cost := costs[code]) is not None}
    everything, found = instructions_of(blocks), instructions_of({code: blocks[code] for code in known})
    if everything and not found:
        raise ConverterError("none of the blocks that were executed was understood", where=f"{len(blocks)} blocks")
    cycles = sum(cost * blocks[code] for code, cost in known.items())
    return Cycles(everything, cycles * everything / found if found else 0.0, found)


def block_costs(regions: Sequence[Blocks], core: str, folder: Path) -> Costs:
    """Cycles of one execution of each of the hottest blocks of each region, from the disk or judged now.

    Args:
        regions: what was executed.
        core: one of :data:`tools.arm64.llvm.CORE_MODELS`.
        folder: where costs are kept, in a file for each model of a core, version of LLVM, and way to judge.

    Raises:
        UsageError: LLVM is not there, or the folder cannot be written.
        ConverterError: LLVM failed.
    """
    file = folder / f"{check_modelled(core).processor}-llvm{llvm_version()}-{ITERATIONS}-{CALL_LATENCY}.txt"
    costs = _read(file)
    before = len(costs)
    while new := {code for blocks in regions for code in hottest(blocks, costs) if code not in costs}:
        found = judged(sorted(new), core)
        costs |= {code: found.get(code) for code in new}  # others take the place of those that were not understood
    if len(costs) > before:
        _write(file, costs)
    return costs


def _read(file: Path) -> dict[bytes, float | None]:
    if not file.exists():
        return {}
    rows = (line.split() for line in file.read_text().splitlines())
    return {bytes.fromhex(code): None if cost == "none" else float(cost) for code, cost in rows}


def _write(file: Path, costs: Costs) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "choose another folder for the set-up with --root"
        raise UsageError(f"the folder cannot be written: {error.strerror}", where=str(file.parent), hint=hint) from None
    text = "".join(f"{code.hex()} {'none' if cost is None else cost}\n" for code, cost in sorted(costs.items()))
    write_files({file: text.encode()})
