"""What the kernels of each case take on an emulated core, and in which part of the work: sums, codes, or all else."""

from __future__ import annotations

import struct
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from runtime_tests.emulation.blocks import INSTRUCTION_BYTES, Blocks
from runtime_tests.emulation.environment import Environment
from tools.arm64.per_op import Apart, take_apart
from tools.profile.probes import branches
from tools.upstream.models import Case, joined, model_of

__all__ = ["CODES", "REST", "SUMS", "Taken", "counted", "part_of"]

SUMS, CODES, REST = "sums", "codes", "rest"

_SUMS = (
    (0xFFC0F400, 0x4F80E000),  # SDOT by element
    (0xFFE0FC00, 0x4E809400),  # SDOT
    (0xFFE0FC00, 0x4E80A400),  # SMMLA
    (0xBFE0FC00, 0x0E208000),  # SMLAL of bytes
    (0xBFE0FC00, 0x0E20C000),  # SMULL of bytes
)
_CODES = (
    (0xFFFFFC00, 0x4E21D800),  # SCVTF of four words
    (0xFFFFFC00, 0x4E21A800),  # FCVTNS of four words
)
"""Masks and values of instructions that tell what a block does (Arm Architecture Reference Manual, C7.2)."""


@dataclass(frozen=True)
class Taken:
    """Instructions of a case by part of the work.

    Attributes:
        sums: in blocks that multiply codes and add up.
        codes: in blocks that turn sums into numbers or codes and add up nothing.
        rest: in all other blocks: laying out, copying, loops, and the call of the runtime.
    """

    sums: float
    codes: float
    rest: float

    @property
    def whole(self) -> float:
        """Of all parts."""
        return self.sums + self.codes + self.rest


def part_of(code: bytes) -> str:
    """What a block of instructions is there for."""
    words = struct.unpack(f"<{len(code) // INSTRUCTION_BYTES}I", code)
    for part, patterns in ((SUMS, _SUMS), (CODES, _CODES)):
        if any(word & mask == value for word in words for mask, value in patterns):
            return part
    return REST


def counted(cases: Sequence[Case], core: str, env: Environment) -> tuple[dict[str, Taken], str]:
    """What the kernels of each case take, by its name; and what ran them, in a line.

    All are counted in one model, where they stand side by side, each node by itself; a run of nothing is taken off.
    """
    with tempfile.TemporaryDirectory(prefix="upstream-") as folder:
        path = Path(folder, "cases.onnx")
        onnx.save(joined([model_of(case, place) for place, case in enumerate(cases)]), path)
        apart = take_apart(path, core, env=env, blocks=True)
    return {case.name: _taken(case, place, apart) for place, case in enumerate(cases)}, str(apart.whole.machine)


def _taken(case: Case, place: int, apart: Apart) -> Taken:
    nodes = [part.model.graph.node[0] for part in apart.parts]
    found = Counter[str]()
    for node, branch, result in zip(nodes, branches([(node.input, node.output) for node in nodes]), apart.alone, strict=True):
        if branch == f"p{place:04}" and node.op_type in case.kernels:
            assert result.error is None, f"{case.name}: {result.error}"
            found.update(_parts(result.blocks[0]))
            found.subtract({REST: apart.bound_call.instructions[0]})
    assert found, f"the runtime has none of {case.kernels} for {case.name}"
    return Taken(found[SUMS], found[CODES], found[REST])


def _parts(blocks: Blocks) -> Counter[str]:
    found = Counter[str]()
    for code, executions in blocks.items():
        found[part_of(code)] += executions * (len(code) // INSTRUCTION_BYTES)
    return found
