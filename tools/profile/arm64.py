"""What every probe takes on an emulated ARM64 core: instructions or cycles of the nodes of its branch."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx

from runtime_tests.emulation.emulator import Machine
from runtime_tests.emulation.environment import Environment, environment
from tools.arm64.model_cycles import cycles_per_op
from tools.arm64.per_op import count_per_op
from tools.arm64.split import Piece
from tools.profile.probes import branches
from tools.profile.samples import CONVERSIONS, Timed, is_layout

__all__ = ["CYCLES", "INSTRUCTIONS", "counted_nodes"]

INSTRUCTIONS, CYCLES = "instructions", "cycles"
"""Units in which a node of an emulated core can be measured."""

_Node = tuple[str, str, str, float | None]
"""Type, name, result and cost, as of :class:`tools.profile.samples.Timed`."""


def counted_nodes(
    model: onnx.ModelProto, core: str, env: Environment | None = None, unit: str = INSTRUCTIONS
) -> tuple[list[Timed], float, str]:
    """Count every node of a probe model.

    Args:
        unit: of the costs.

    Returns:
        The nodes; what a call of the runtime takes without any; what ran it, in a line.
    """
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        path = Path(folder, "probes.onnx")
        path.write_bytes(model.SerializeToString())
        return (_in_cycles if unit == CYCLES else _in_instructions)(path, core, env or environment())


def _in_instructions(path: Path, core: str, env: Environment) -> tuple[list[Timed], float, str]:
    found = count_per_op(path, core, env=env, select=_few_conversions)
    nodes = [(each.op_type, each.name, each.result, each.instructions) for each in found.nodes]
    return _timed(nodes, [(each.reads, each.writes) for each in found.nodes]), float(found.call), _ran(found.whole.machine)


def _in_cycles(path: Path, core: str, env: Environment) -> tuple[list[Timed], float, str]:
    found = cycles_per_op(path, core, env, select=_few_conversions)
    nodes = [(each.op_type, each.name, each.result, None if each.amount is None else each.amount.cycles) for each in found.nodes]
    call = 0.0 if found.call is None else found.call.cycles
    ran = f"{_ran(found.count.machine)}, cycles by LLVM {found.llvm}"
    return _timed(nodes, [(each.reads, each.writes) for each in found.nodes]), call, ran


def _ran(machine: Machine) -> str:
    return f"{machine.core} ({' '.join(machine.capabilities)}), onnxruntime {machine.onnxruntime}, emulated"


def _few_conversions(pieces: Sequence[Piece]) -> list[Piece]:
    """All nodes, but of Q, DQ and changes of layout only one of each size: there are more of them than of all others."""
    seen = set()
    chosen = []
    for piece in pieces:
        known = (piece.op_type, piece.result)
        surrounds = piece.op_type in CONVERSIONS or is_layout(piece.op_type, piece.name)
        if not surrounds or known not in seen:
            chosen.append(piece)
        seen.add(known)
    return chosen


def _timed(nodes: Sequence[_Node], tensors: Sequence[tuple[tuple[str, ...], tuple[str, ...]]]) -> list[Timed]:
    """Nodes with the branches that they belong to, by the tensors that each reads and writes."""
    return [
        Timed(branch, op_type, name, result, None if cost is None else float(cost))
        for branch, (op_type, name, result, cost) in zip(branches(tensors), nodes, strict=True)
    ]
