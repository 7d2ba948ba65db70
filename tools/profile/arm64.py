"""What every probe takes on an emulated ARM64 core: instructions of the nodes of its branch."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx

from runtime_tests.emulation.environment import Environment
from tools.arm64.per_op import NodeCount, count_per_op
from tools.arm64.split import Piece
from tools.profile.probes import branches
from tools.profile.samples import CONVERSIONS, Timed, is_layout

__all__ = ["counted_nodes"]


def counted_nodes(model: onnx.ModelProto, core: str, env: Environment | None = None) -> tuple[list[Timed], float, str]:
    """Count every node of a probe model.

    Returns:
        The nodes, with instructions as cost; what a call of the runtime takes without any; what ran it, in a line.
    """
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        path = Path(folder, "probes.onnx")
        path.write_bytes(model.SerializeToString())
        found = count_per_op(path, core, env=env, select=_few_conversions)
    machine = found.whole.machine
    ran = f"{machine.core} ({' '.join(machine.capabilities)}), onnxruntime {machine.onnxruntime}, emulated"
    names = branches([(node.reads, node.writes) for node in found.nodes])
    return [_timed(node, name) for node, name in zip(found.nodes, names, strict=True)], float(found.call), ran


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


def _timed(node: NodeCount, branch: str) -> Timed:
    return Timed(branch, node.op_type, node.name, node.result, None if node.instructions is None else float(node.instructions))
