"""The network as a chain: bridge blocks, and what lies between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from converter.diagnosis.records import Segment
from converter.graph.operator_sets import CONVOLUTIONS
from converter.graph.queries import constant, is_float
from converter.sensitivity.bridge_blocks import Block

__all__ = ["chain_of"]

_MAP_RANK = 4
_OF_MAPS = CONVOLUTIONS | {"AveragePool", "DepthToSpace", "MaxPool", "Resize", "SpaceToDepth"}


def chain_of(model: ir.Model, blocks: Sequence[Block], shapes: Mapping[str, Sequence[int]]) -> tuple[Segment, ...]:
    """Segments in graph order; what lies between bridge blocks is split where the size of the maps changes.

    Args:
        model: canonical model.
        blocks: bridge blocks; of operators that the model lacks, nothing is said.
        shapes: of its float tensors.
    """
    block_of = {name: number for number, block in enumerate(blocks) for name in block.nodes}
    open_segments: list[tuple[str, tuple[int, int] | None, list[str]]] = []
    of_block: dict[int, list[str]] = {}
    for node in model.graph:
        if not any(is_float(o) for o in node.outputs) or constant(node.outputs[0]) is not None:
            continue
        name, size = str(node.name), _map_size(node, shapes)
        number = block_of.get(name)
        if number is not None:
            if number not in of_block:
                of_block[number] = []
                open_segments.append((blocks[number].kind, blocks[number].size, of_block[number]))
            of_block[number].append(name)
            continue
        last = open_segments[-1] if open_segments else None
        if last is None or last[0] or (size is not None and last[1] not in (None, size)):
            open_segments.append(("", size, [name]))
        else:
            open_segments[-1] = ("", last[1] or size, last[2])
            last[2].append(name)
    return tuple(Segment(bridge, size, tuple(names)) for bridge, size, names in open_segments)


def _map_size(node: ir.Node, shapes: Mapping[str, Sequence[int]]) -> tuple[int, int] | None:
    """Height and width of what an operator makes, if that surely is a map, of more than one place."""
    if node.op_type not in _OF_MAPS:
        return None  # four axes may also be heads and tokens, or have the channels last
    shape = shapes.get(str(node.outputs[0].name), ())
    return (int(shape[2]), int(shape[3])) if len(shape) == _MAP_RANK and shape[2] * shape[3] > 1 else None
