"""Small spellings that the runtime's integer kernels insist on.

1. ``ReduceMean`` over height and width of a rank-4 tensor becomes ``GlobalAveragePool`` (and ``Flatten`` when the
   dimensions are dropped).
2. A constant factor alpha or beta of a Gemm goes into its constants; a bias given as a scalar or a row becomes one
   number per column.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.graph import attributes, constant
from converter.rewriting import add_initializer, insert_before, replace

__all__ = ["tidy_spellings"]


def tidy_spellings(model: ir.Model) -> list[str]:
    """Apply the cases above; returns the names of the tensors concerned."""
    graph = model.graph
    changed = []
    for node in list(graph):
        name = str(node.outputs[0].name)
        if node.op_type == "ReduceMean" and _global_average(node):
            changed.append(name)
        elif node.op_type == "Gemm" and _plain_gemm(graph, node):
            changed.append(name)
    return changed


def _global_average(node: ir.Node) -> bool:
    x = node.inputs[0]
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if x is None or x.shape is None or len(x.shape) != 4 or axes is None:
        return False
    if sorted(int(a) % 4 for a in axes.reshape(-1)) != [2, 3]:
        return False
    output = node.outputs[0]
    pooled_shape = ir.Shape([*list(x.shape)[:2], 1, 1])
    pooled = insert_before(node, "GlobalAveragePool", [x], name=f"{output.name}_GlobalAveragePool", like=output, shape=pooled_shape)
    if not attributes(node).get("keepdims", 1):
        pooled = insert_before(node, "Flatten", [pooled], {"axis": 1}, name=f"{output.name}_Flatten", like=output)
    replace(output, pooled, [node])
    return True


def _plain_gemm(graph: ir.Graph, node: ir.Node) -> bool:
    attrs = attributes(node)
    weight = constant(node.inputs[1])
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant(bias_value)
    if weight is None or (bias_value is not None and bias is None):
        return False
    alpha, beta = attrs.get("alpha", 1.0), attrs.get("beta", 1.0)
    columns = weight.shape[0 if attrs.get("transB", 0) else 1]
    plain_bias = bias is None or bias.shape == (columns,)
    if (alpha == 1.0 and beta == 1.0 and plain_bias) or (bias is not None and bias.size not in (1, columns)):
        return False
    name = node.outputs[0].name
    if alpha != 1.0:
        node.replace_input_with(1, add_initializer(graph, f"{name}_weight", (weight * np.float32(alpha)).astype(np.float32)))
    if bias is not None:
        row = np.broadcast_to(bias.reshape(-1) * np.float32(beta), (columns,)).astype(np.float32)
        node.replace_input_with(2, add_initializer(graph, f"{name}_bias", row))
    for attribute in ("alpha", "beta"):
        node.attributes.pop(attribute, None)
    return True
