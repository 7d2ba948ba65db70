"""How often each block of instructions was executed in a marked region."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from runtime_tests.emulation import guest

__all__ = ["INSTRUCTION_BYTES", "Blocks", "instructions_of", "read_blocks"]

INSTRUCTION_BYTES = 4
"""Of every ARM64 instruction."""

Blocks = Mapping[bytes, int]
"""Executions by the code of a block: instructions that run one after the other, in the order of memory. The same code at two
addresses is one block."""


def instructions_of(blocks: Blocks) -> int:
    """Instructions that all executions of the blocks take."""
    return sum(len(code) // INSTRUCTION_BYTES * executions for code, executions in blocks.items())


def read_blocks(lines: Iterable[str]) -> dict[int, Blocks]:
    """Blocks of each region, from the lines that the plugin ``blocks.c`` writes. Regions may lie within others.

    Regions that did not end are left out: what ran in them failed.
    """
    codes: dict[str, bytes] = {}
    begun: dict[int, defaultdict[bytes, int]] = {}
    found: dict[int, Blocks] = {}
    for line in lines:
        word, *rest = line.split()
        if word == "block":
            codes[rest[0]] = bytes.fromhex(rest[2])
        elif word == "runs":
            for executions in begun.values():
                executions[codes[rest[0]]] += int(rest[1])
        elif int(rest[1]) == guest.BEGIN:
            begun[int(rest[0])] = defaultdict(int)
        else:
            found[int(rest[0])] = dict(begun.pop(int(rest[0])))
    return found
