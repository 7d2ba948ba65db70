"""Constant gates: one number in the place of a sigmoid that gates what it reads, as in SiLU, and hardly varies there.

Close to zero SiLU is half of what it reads. Where all inputs are that close, the gate is written into the model as a
constant; multiplication by one number needs no kernel at all, only another scale for the same codes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from converter.graph.builder import GraphBuilder
from converter.graph.queries import data_inputs, is_graph_output, sole_consumer

__all__ = ["apply_constant_gates", "gated_product"]


def gated_product(sigmoid: ir.Node) -> ir.Node | None:
    """The product of a sigmoid with its own input, if that is all that reads the sigmoid."""
    if sigmoid.op_type != "Sigmoid":
        return None
    output, x = sigmoid.outputs[0], sigmoid.inputs[0]
    reader = sole_consumer(output)
    if reader is None or x is None or is_graph_output(output) or reader.op_type != "Mul":
        return None
    return reader if [value for _, value in data_inputs(reader)] in ([x, output], [output, x]) else None


def apply_constant_gates(model: ir.Model, constant_gates: Mapping[str, float]) -> ir.Model:
    """A copy of a model with constants in the place of some sigmoids. The names of what is left stay.

    Args:
        model: canonical float model; left as it is.
        constant_gates: by the name of the sigmoid.

    Raises:
        ValueError: there is no such sigmoid, it does more than gate its input, or its level is none of its values.
    """
    result: ir.Model = ir.from_proto(ir.to_proto(model))
    nodes, builder = {str(node.name): node for node in result.graph}, GraphBuilder(result.graph)
    for name, constant_gate in constant_gates.items():
        product = gated_product(nodes[name]) if name in nodes else None
        if product is None:
            raise ValueError(f"operator '{name}' is no sigmoid that does nothing but gate what it reads")
        if not 0.0 < constant_gate < 1.0:
            raise ValueError(f"the constant gate of operator '{name}' is {constant_gate:g}, not between 0 and 1")
        number = builder.initializer(f"{name}_level", np.array(constant_gate, np.float32))
        product.replace_input_with(list(product.inputs).index(nodes[name].outputs[0]), number)
        builder.remove([nodes[name]])
    return result
