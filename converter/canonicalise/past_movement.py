"""What stands behind operators that only move numbers is brought in front of them, where a layer can take it in.

1. ``Mul`` or ``Add`` by a constant, behind Reshape, Transpose and the like behind a layer, where it gives every number of a channel
   the same: it goes between the layer and the moves. A linear layer with BatchNorm over flattened tokens is spelled so (LeViT).
2. Of two views in a row, as are left when nothing stands between them any more, the first is left out, and the second too where it
   gives back the shape in front of the first.
3. ``Split`` of which some results are not read becomes a ``Slice`` for each of the others: its integer form would need them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from converter.canonicalise.folding.layers import is_layer
from converter.graph.builder import GraphBuilder
from converter.graph.operator_sets import CONVOLUTIONS, LAYERS, MOVEMENT, VIEWS
from converter.graph.queries import attributes, constant, data_inputs, is_float, sole_consumer
from converter.torch_backend import ops as torch_ops

__all__ = ["bring_forward"]

Array = npt.NDArray[Any]

_LARGEST = 4_000_000
"""Numbers of a tensor whose channels are followed."""

_MOVES = MOVEMENT - {"Expand", "Resize", "Split", "Tile"}


def bring_forward(model: ir.Model) -> list[str]:
    """Apply the cases above; returns the names of the tensors concerned."""
    builder = GraphBuilder(model.graph)
    changed = []
    for node in list(model.graph):
        if node.graph is None:
            continue
        rule = _RULES.get(node.op_type)
        name = str(node.outputs[0].name)
        if rule is not None and rule(builder, node):
            changed.append(name)
    return changed


def _pass_constant(builder: GraphBuilder, node: ir.Node) -> bool:
    """Case 1."""
    read = list(data_inputs(node))
    if len(read) != 1 or len(node.inputs) != 2:
        return False
    ((index, moved),) = read
    operand = constant(node.inputs[1 - index])
    moves = _moves(moved, node)
    if operand is None or not moves:
        return False
    x = moves[0].inputs[0]
    axis = _channel_axis(x) if x is not None else None
    if x is None or x.shape is None or axis is None or not isinstance(x.shape[axis], int):
        return False
    # an open batch is tried in two sizes
    found = [_by_channel(x.shape, size, axis, moves, operand, 1.0 if node.op_type == "Mul" else 0.0) for size in (2, 3)]
    values = found[0]
    if values is None or found[1] is None or not np.array_equal(values, found[1]):
        return False
    shape = [-1 if place == axis else 1 for place in range(len(x.shape))]
    second = builder.initializer(f"{moved.name}_operand", values.reshape(shape[axis:]))
    new = builder.add(node.op_type, [x, second], name=f"{x.name}_{node.op_type}", like=x, before=moves[0])
    moves[0].replace_input_with(0, new)
    builder.replace(node.outputs[0], moved, [node])
    return True


def _moves(value: ir.Value, reader: ir.Node) -> list[ir.Node]:
    """The operators, each the only reader of the one before, that move what ``reader`` alone reads; first to last."""
    moves: list[ir.Node] = []
    while sole_consumer(value) is reader:
        node = value.producer()
        if node is None or node.op_type not in _MOVES or [i for i, _ in data_inputs(node)] != [0]:
            break
        if any(v is not None and constant(v) is None for v in node.inputs[1:]):
            break
        moves.insert(0, node)
        reader, value = node, next(v for _, v in data_inputs(node))
    return moves if moves and sole_consumer(value) is reader else []


def _channel_axis(value: ir.Value) -> int | None:
    """The axis of the channels of a layer's output, or of what constants per channel make of it; None for other tensors."""
    node = value.producer()
    while node is not None and node.op_type in ("Add", "Mul") and len(list(data_inputs(node))) == 1:
        node = next(v for _, v in data_inputs(node)).producer()
    if node is None or value.shape is None or not is_layer(node, *LAYERS, *CONVOLUTIONS):
        return None
    return 1 if node.op_type in CONVOLUTIONS else len(value.shape) - 1


def _by_channel(shape: ir.Shape, open_size: int, axis: int, moves: Sequence[ir.Node], operand: Array, neutral: float) -> Array | None:
    """What of the operand meets each channel, one number per channel; None where that is more than one or another shape comes out."""
    sizes = [n if isinstance(n, int) else open_size for n in shape]
    if math.prod(sizes) > _LARGEST:
        return None
    labels = torch.arange(sizes[axis]).reshape([-1 if place == axis else 1 for place in range(len(sizes))]).expand(sizes)
    for move in moves:
        others = [None if v is None else torch.from_numpy(np.array(constant(v))) for v in move.inputs[1:]]
        try:
            (labels,) = torch_ops.apply(move.op_type, [labels, *others], attributes(move))
        except (torch_ops.UnknownOperatorError, RuntimeError):  # a shape that fits another size of the batch only
            return None
    channels = labels.numpy()
    try:
        met = np.broadcast_to(operand, channels.shape)
    except ValueError:
        return None
    values = np.full(sizes[axis], neutral, operand.dtype)
    values[channels] = met
    return values if np.array_equal(values[channels], met) else None


def _join_views(builder: GraphBuilder, node: ir.Node) -> bool:
    """Case 2; the node is the second."""
    middle, output = node.inputs[0], node.outputs[0]
    first = middle.producer() if middle is not None else None
    if first is None or first.op_type not in VIEWS or sole_consumer(first.outputs[0]) is not node or output.is_graph_output():
        return False
    x = first.inputs[0]
    if x is None or x.shape is None or output.shape is None or not is_float(x):
        return False
    before, after = (tuple(n if isinstance(n, int) else -1 for n in shape) for shape in (x.shape, output.shape))
    if after.count(-1) > 1 or 0 in after:
        return False
    if before == after:
        ir.convenience.replace_all_uses_with(output, x)
        builder.remove([node, first])
        return True
    target = builder.initializer(f"{output.name}_shape", np.array(after, np.int64))
    new = builder.add("Reshape", [x, target], name=f"{output.name}_Reshape", like=output, before=node)
    builder.replace(output, new, [node, first])
    return True


def _slice(builder: GraphBuilder, node: ir.Node) -> bool:
    """Case 3."""
    x, read = node.inputs[0], [o for o in node.outputs if o.uses() or o.is_graph_output()]
    if x is None or not is_float(x) or len(read) == len(node.outputs) or not read or x.shape is None:
        return False
    axis, given = attributes(node).get("axis", 0), constant(node.inputs[1]) if len(node.inputs) > 1 else None
    size = x.shape[axis]
    if given is None and isinstance(size, int) and len(node.inputs) < 2:
        width = -(-size // len(node.outputs))
        given = np.diff(np.minimum(np.arange(len(node.outputs) + 1) * width, size))
    if given is None:
        return False
    ends = np.cumsum(given)
    for place, output in enumerate(node.outputs):
        if output not in read:
            continue
        bounds = [("start", ends[place] - given[place]), ("end", ends[place]), ("axis", axis)]
        operands = [builder.initializer(f"{output.name}_{what}", np.array([n], np.int64)) for what, n in bounds]
        new = builder.add("Slice", [x, *operands], name=f"{output.name}_Slice", like=output, before=node)
        builder.replace(output, new, [])
    builder.remove([node])
    return True


_RULES: Mapping[str, Callable[[GraphBuilder, ir.Node], bool]] = {
    "Add": _pass_constant,
    "Mul": _pass_constant,
    "Split": _slice,
    **dict.fromkeys(VIEWS, _join_views),
}
