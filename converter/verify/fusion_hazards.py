"""Check an emitted graph for forms that ONNX Runtime fuses and then runs wrong, or fails on.

1. A per-axis Q or DQ on an activation of Conv, ConvTranspose, Gemm or MatMul, also behind or in front of a Transpose,
   which the runtime moves them through: fused, then fails at run time.
2. An int32 bias whose scale is not float32(s_x) * float32(s_w) for every channel: fused and silently wrong.
3. A weight with several zero points: fused, then fails at run time.
4. A quantized initializer, or the DQ of one, that two nodes share: fails to load under some session settings.
5. A scale that is zero, denormal, negative or not finite.
6. A per-axis Q straight behind an operator that the runtime would join with it: fails to load.
7. A per-axis Q read by a scalar DQ, which a layer takes for the codes of a scalar Q, as it may if the Q is on axis 1 and
   both have the same zero point throughout. Otherwise the numbers would be wrong.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.emit.fusion_barriers import TAKEN
from converter.errors import VerificationError
from converter.graph.operator_sets import PRODUCTS
from converter.graph.queries import attributes, constant
from converter.quantization.bias import bias_scale

__all__ = ["check_emitted"]

_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


def check_emitted(model: ir.Model) -> None:
    """Refuse a graph that the runtime would run wrong.

    Raises:
        VerificationError: names the node and the case.
    """
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _check_scale(node)
            value = node.inputs[0]
            if constant(value) is not None and value is not None and max(len(value.uses()), len(node.outputs[0].uses())) > 1:
                raise _refusal(node, f"the quantized constant '{value.name}' is shared between nodes")
            if node.op_type == "QuantizeLinear" and constant(value) is None and _per_axis(node):
                _check_per_axis(node)
        if node.op_type in PRODUCTS:
            _check_layer(node)


def _refusal(node: ir.Node, what: str) -> VerificationError:
    return VerificationError(
        f"the emitted graph is unsafe: {what}",
        where=f"node '{node.name}' ({node.op_type})",
        hint="this is a defect of the converter or of an edited plan; --exclude the node to go on",
    )


def _check_scale(node: ir.Node) -> None:
    scale = constant(node.inputs[1])
    if scale is None or not np.all(np.isfinite(scale)) or not np.all(scale >= _SMALLEST_NORMAL):
        raise _refusal(node, "a scale is not a positive normal number")


def _dequantize(value: ir.Value | None) -> ir.Node | None:
    """The DQ that makes a value, looking through Transpose."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type == "Transpose":
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _per_axis(node: ir.Node) -> bool:
    scale = constant(node.inputs[1])
    return scale is not None and scale.size > 1


def _check_per_axis(node: ir.Node) -> None:
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    if producer is not None and producer.op_type in TAKEN and any(_dequantize(v) is not None for v in producer.inputs):
        raise _refusal(node, f"a per-axis QuantizeLinear stands straight behind the {producer.op_type} '{producer.name}'")
    for reader in _readers_of_codes(node.outputs[0]):
        if reader.op_type != "DequantizeLinear":
            raise _refusal(reader, "it reads the codes of a per-axis QuantizeLinear")
        if _per_axis(reader):
            continue
        zero_points = _zero_points(node)
        if attributes(node).get("axis", 1) != 1 or len(zero_points) != 1 or _zero_points(reader) != zero_points:
            raise _refusal(reader, "its one scale does not stand for those of the per-axis QuantizeLinear in front of it")


def _zero_points(node: ir.Node) -> set[int]:
    array = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return {0} if array is None else {int(z) for z in array.reshape(-1)}


def _readers_of_codes(codes: ir.Value) -> list[ir.Node]:
    """Who reads codes, looking through Clip."""
    readers = [use.node for use in codes.uses()]
    return [r for n in readers for r in (_readers_of_codes(n.outputs[0]) if n.op_type == "Clip" else [n])]


def _check_layer(node: ir.Node) -> None:
    sources = [_dequantize(v) for v in node.inputs]
    for source in sources[:2]:
        stored = source is not None and constant(source.inputs[0]) is not None
        if source is None:
            continue
        if not stored and _per_axis(source):
            raise _refusal(node, "a per-axis DequantizeLinear feeds its activation")
        zero_points = constant(source.inputs[2]) if len(source.inputs) > 2 else None
        if stored and zero_points is not None and np.unique(zero_points).size > 1:
            raise _refusal(node, "its weight has several zero points")
    if _followed_by_per_axis(node):
        raise _refusal(node, "a per-axis QuantizeLinear follows it")
    if len(sources) > 2 and sources[2] is not None:
        _check_bias(node, sources)


def _followed_by_per_axis(node: ir.Node) -> bool:
    for use in node.outputs[0].uses():
        if use.node.op_type == "QuantizeLinear" and use.idx == 0 and _per_axis(use.node):
            return True
        if use.node.op_type == "Transpose" and _followed_by_per_axis(use.node):
            return True
    return False


def _check_bias(node: ir.Node, sources: list[ir.Node | None]) -> None:
    x, w, bias = sources[:3]
    if bias is None:
        return
    codes = constant(bias.inputs[0])
    if codes is None or codes.dtype != np.int32:
        raise _refusal(node, "its bias is not stored as int32")
    if x is None or w is None:
        raise _refusal(node, "its bias is int32 but its input or weight is not quantized")
    s_x, s_w, s_b = (constant(n.inputs[1]) for n in (x, w, bias))
    if s_x is None or s_w is None or s_b is None:
        raise _refusal(node, "a scale is computed at run time")
    expected = bias_scale(float(s_x.reshape(-1)[0]), s_w.reshape(-1))
    if not np.array_equal(np.broadcast_to(expected, s_b.reshape(-1).shape), s_b.reshape(-1).astype(np.float32)):
        raise _refusal(node, "its bias scale is not the product of input and weight scale")
