"""Small spellings that the runtime's integer kernels insist on.

1. ``ReduceMean`` over height and width of a rank-4 tensor becomes ``GlobalAveragePool`` (and ``Flatten`` when the
   dimensions are dropped).
2. A constant factor alpha or beta of a Gemm goes into its constants; a bias given as a scalar or a row becomes one
   number per column.
3. Softmax or LogSoftmax of a tensor that is flattened up to its last axis, and brought back to its shape, needs neither
   (opset conversion leaves this for tensors whose rank shows only later).
4. An Expand for the sake of Add, Sub, Mul or Div, which broadcast by themselves, is left out.

Those of :mod:`converter.canonicalise.axes` come with them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from converter.canonicalise.axes import complete_pads, complete_sizes, crop_and_pad
from converter.graph.builder import GraphBuilder, rewrite_nodes
from converter.graph.queries import attributes, constant, is_float, sole_consumer

__all__ = ["tidy_spellings"]

_BROADCASTING = frozenset(["Add", "Sub", "Mul", "Div"])


def tidy_spellings(model: ir.Model) -> list[str]:
    """Apply the cases above; returns the names of the tensors concerned."""
    return rewrite_nodes(model, _RULES)


def _global_average(builder: GraphBuilder, node: ir.Node) -> bool:
    x = node.inputs[0]
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if x is None or not is_float(x) or x.shape is None or len(x.shape) != 4 or axes is None:
        return False
    if sorted(int(a) % 4 for a in axes.reshape(-1)) != [2, 3]:
        return False
    output = node.outputs[0]
    pooled_shape = ir.Shape([*list(x.shape)[:2], 1, 1])
    pooled = builder.add("GlobalAveragePool", [x], name=f"{output.name}_GlobalAveragePool", like=output, shape=pooled_shape, before=node)
    if not attributes(node).get("keepdims", 1):
        pooled = builder.add("Flatten", [pooled], {"axis": 1}, name=f"{output.name}_Flatten", like=output, before=node)
    builder.replace(output, pooled, [node])
    return True


def _plain_gemm(builder: GraphBuilder, node: ir.Node) -> bool:
    attrs = attributes(node)
    weight = constant(node.inputs[1])
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant(bias_value)
    if weight is None or (bias_value is not None and bias is None):
        return False
    alpha, beta = attrs.get("alpha", 1.0), attrs.get("beta", 1.0)
    columns = weight.shape[0 if attrs.get("transB", 0) else 1]
    plain_bias = bias is None or bias.shape == (columns,)
    if (alpha == 1.0 and beta == 1.0 and plain_bias) or (bias is not None and bias.size not in (1, bias.shape[-1] if bias.ndim else 1)):
        return False
    name = node.outputs[0].name
    if alpha != 1.0:
        node.replace_input_with(1, builder.initializer(f"{name}_weight", (weight * np.float32(alpha)).astype(np.float32)))
    if bias is not None:
        row = np.broadcast_to(bias.reshape(-1) * np.float32(beta), (columns,)).astype(np.float32)
        node.replace_input_with(2, builder.initializer(f"{name}_bias", row))
    for attribute in ("alpha", "beta"):
        node.attributes.pop(attribute, None)
    return True


def _needless_expand(builder: GraphBuilder, node: ir.Node) -> bool:
    """Case 4: every reader has another operand of the expanded shape."""
    x, output = node.inputs[0], node.outputs[0]
    uses = list(output.uses())
    if x is None or output.shape is None or output.is_graph_output() or not uses:
        return False
    for reader, index in uses:
        other = reader.inputs[1 - index] if reader.op_type in _BROADCASTING else None
        if other is None or other is output or other.shape is None or list(other.shape) != list(output.shape):
            return False
    for reader, index in uses:
        reader.replace_input_with(index, x)
    return True


def _softmax_of_flat(builder: GraphBuilder, node: ir.Node) -> bool:
    """Case 3; the node is the Reshape."""
    softmax = node.inputs[0].producer() if node.inputs[0] is not None else None
    shape = node.inputs[1].producer() if node.inputs[1] is not None else None
    if softmax is None or softmax.op_type not in ("Softmax", "LogSoftmax") or shape is None or shape.op_type != "Shape" or shape.attributes:
        return False
    flatten = softmax.inputs[0].producer() if softmax.inputs[0] is not None else None
    if flatten is None or flatten.op_type != "Flatten" or sole_consumer(flatten.outputs[0]) is not softmax:
        return False
    x = flatten.inputs[0]
    if x is None or x is not shape.inputs[0] or x.shape is None or sole_consumer(softmax.outputs[0]) is not node:
        return False
    if attributes(flatten).get("axis", 1) != len(x.shape) - 1 or attributes(softmax).get("axis", -1) not in (-1, 1):
        return False
    output = node.outputs[0]
    new = builder.add(softmax.op_type, [x], {"axis": -1}, name=f"{output.name}_{softmax.op_type}", like=output, before=node)
    builder.replace(output, new, [node, softmax, flatten])
    return True


def _one_matrix(builder: GraphBuilder, node: ir.Node) -> bool:
    """Case 5: without the leading axes of the constant, the product has the same shape."""
    x, weight = node.inputs[0], constant(node.inputs[1])
    if weight is None or weight.ndim < 3 or weight.size != weight.shape[-2] * weight.shape[-1]:
        return False
    if x is None or x.shape is None or len(x.shape) < weight.ndim:
        return False
    node.replace_input_with(1, builder.initializer(f"{node.outputs[0].name}_weight", weight.reshape(weight.shape[-2:])))
    return True


_RULES: dict[str, Callable[[GraphBuilder, ir.Node], bool]] = {
    "CenterCropPad": crop_and_pad,
    "Pad": complete_pads,
    "ReduceMean": _global_average,
    "Resize": complete_sizes,
    "Gemm": _plain_gemm,
    "Reshape": _softmax_of_flat,
    "Expand": _needless_expand,
    "MatMul": _one_matrix,
}
