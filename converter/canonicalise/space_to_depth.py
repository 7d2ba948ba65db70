"""What moves numbers between channels and places is written as moves of whole blocks, channels last.

1. ``DepthToSpace`` and ``SpaceToDepth`` become a ``Transpose`` to channels last, one of blocks between two ``Reshape``, and one back. The
   runtime's own kernels move one number at a time, and the one for int8 is missing in ONNX Runtime 1.23. Channels in the order of a
   pixel shuffle (mode CRD) are brought into that of blocks in the weights of the convolution in front, or by a ``Gather``.
2. ``ConvTranspose`` whose windows neither overlap nor leave gaps becomes a ``Conv`` of size 1 and the same moves.

Counted by ``tools.arm64.count --core cortex-a76`` on models of these operators alone (256 channels of 64 x 64 places, float): 20.8 M
instructions as DepthToSpace, 4.6 M as moves of blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from converter.canonicalise.folding.layers import bias_of, is_layer
from converter.graph.builder import GraphBuilder
from converter.graph.queries import attributes, constant, is_float, sole_consumer

__all__ = ["move_blocks"]

_BLOCKS = [0, 1, 3, 2, 4]
"""[batch, height, block, width, block * channels] and back."""


def move_blocks(model: ir.Model) -> list[str]:
    """Apply the cases above where height and width are known; returns the names of the results."""
    builder = GraphBuilder(model.graph)
    named = [(str(node.outputs[0].name), node, rule) for node in model.graph if (rule := _RULES.get(node.op_type)) is not None]
    return [name for name, node, rule in named if is_float(node.outputs[0]) and rule(builder, node)]


def _sides(value: ir.Value | None) -> tuple[int, int, int] | None:
    """Channels, height and width of a map; None where one is open."""
    shape = value.shape if value is not None else None
    if shape is None or len(shape) != 4:
        return None
    channels, height, width = shape[1:]
    return (channels, height, width) if isinstance(channels, int) and isinstance(height, int) and isinstance(width, int) else None


def _depth_to_space(builder: GraphBuilder, node: ir.Node) -> bool:
    x, sides, size = node.inputs[0], _sides(node.inputs[0]), int(attributes(node)["blocksize"])
    if x is None or sides is None:
        return False
    if attributes(node).get("mode", "DCR") == "CRD":
        x = _blocks_first(builder, node, x, np.arange(sides[0]).reshape(-1, size * size).T.reshape(-1))
    _spread(builder, node, x, (size, size))
    return True


def _blocks_first(builder: GraphBuilder, node: ir.Node, x: ir.Value, order: np.ndarray) -> ir.Value:
    """The same channels in this order."""
    layer = x.producer()
    weight = constant(layer.inputs[1]) if layer is not None and len(layer.inputs) > 1 else None
    if (
        layer is not None
        and weight is not None
        and is_layer(layer, "Conv")
        and sole_consumer(x) is node
        and attributes(layer).get("group", 1) == 1
    ):
        layer.replace_input_with(1, builder.initializer(f"{x.name}_weight", weight[order]))
        if (bias := bias_of(layer, len(order))) is not None:
            layer.replace_input_with(2, builder.initializer(f"{x.name}_bias", bias[order].astype(np.float32)))
        return x
    indices = builder.initializer(f"{node.outputs[0].name}_order", order.astype(np.int64))
    return builder.add("Gather", [x, indices], {"axis": 1}, name=f"{node.outputs[0].name}_Gather", like=x, before=node)


def _spread(builder: GraphBuilder, node: ir.Node, x: ir.Value, size: tuple[int, int]) -> None:
    """Let channels [block of height, block of width, channel] of ``x``, spread over places, stand for the node's output."""
    sides = _sides(x)
    assert sides is not None
    depth, height, width = sides[0] // (size[0] * size[1]), sides[1], sides[2]
    apart = [0, height, width, size[0], size[1] * depth]
    together = [0, height * size[0], width * size[1], depth]
    _move(builder, node, x, apart, together)


def _space_to_depth(builder: GraphBuilder, node: ir.Node) -> bool:
    x, sides, size = node.inputs[0], _sides(node.inputs[0]), int(attributes(node)["blocksize"])
    if x is None or sides is None:
        return False
    channels, height, width = sides[0], sides[1] // size, sides[2] // size
    _move(builder, node, x, [0, height, size, width, size * channels], [0, height, width, size * size * channels])
    return True


def _move(builder: GraphBuilder, node: ir.Node, x: ir.Value, apart: Sequence[int], together: Sequence[int]) -> None:
    """Channels last, blocks past each other, channels first."""
    output, batch = node.outputs[0], x.shape[0] if x.shape is not None else None

    def add(op_type: str, value: ir.Value, sizes: Sequence[int], what: str, perm: Sequence[int] = ()) -> ir.Value:
        shape = ir.Shape([batch, *sizes[1:]])
        second = [builder.initializer(f"{output.name}_{what}_shape", np.array(sizes, np.int64))] if op_type == "Reshape" else []
        attrs = {"perm": list(perm)} if perm else {}
        return builder.add(op_type, [value, *second], attrs, name=f"{output.name}_{what}", like=output, shape=shape, before=node)

    channels, height, width = _sides(x) or (0, 0, 0)
    value = add("Transpose", x, [0, height, width, channels], "last", [0, 2, 3, 1])
    value = add("Reshape", value, apart, "apart")
    value = add("Transpose", value, [apart[axis] for axis in _BLOCKS], "blocks", _BLOCKS)
    value = add("Reshape", value, together, "together")
    value = add("Transpose", value, [0, together[3], together[1], together[2]], "first", [0, 3, 1, 2])
    builder.replace(output, value, [node])


def _without_overlap(builder: GraphBuilder, node: ir.Node) -> bool:
    """Case 2."""
    attrs, weight, sides = attributes(node), constant(node.inputs[1]), _sides(node.inputs[0])
    x = node.inputs[0]
    if x is None or weight is None or weight.ndim != 4 or sides is None or not is_layer(node, "ConvTranspose"):
        return False
    size, groups = weight.shape[2:], int(attrs.get("group", 1))
    plain = not any([*attrs.get("pads", []), *attrs.get("output_padding", [])]) and set(attrs.get("dilations", [1])) == {1}
    if (
        tuple(attrs.get("strides", (1, 1))) != size
        or not plain
        or "output_shape" in attrs
        or attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    ):
        return False
    if groups != 1 or size == (1, 1):
        return False
    channels = weight.shape[1]
    name = str(node.outputs[0].name)
    matrix = weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0], 1, 1)
    operands = [x, builder.initializer(f"{name}_weight", np.ascontiguousarray(matrix))]
    if (bias := bias_of(node, channels)) is not None:
        operands.append(builder.initializer(f"{name}_bias", np.tile(bias, size[0] * size[1]).astype(np.float32)))
    shape = ir.Shape([x.shape[0] if x.shape is not None else None, len(matrix), *sides[1:]])
    product = builder.add("Conv", operands, {"kernel_shape": [1, 1]}, name=f"{name}_Conv", like=x, shape=shape, before=node)
    _spread(builder, node, product, (size[0], size[1]))
    return True


_RULES = {"ConvTranspose": _without_overlap, "DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth}
