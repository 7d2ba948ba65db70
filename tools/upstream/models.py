"""Small models of operators whose kernels could take less, each with what shows how much less: the same work in another form.

Shapes are of layers of hybrid networks: MobileViT xxs at 256 pixels, EfficientFormer L1 at 224.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from converter.targets import find_target
from tools.profile.probes import Probe, integers, probe_model, seen_in

__all__ = ["CASES", "ELEMENT", "MAC", "Case", "amount", "depth", "joined", "model_of"]

ELEMENT, MAC = "element", "multiply-accumulate"
"""What instructions are divided by."""

_TARGET = "arm64"
_STEP = 2.0**-4
"""Of codes of normal numbers, which stay within them."""

_BETWEEN_0_AND_1 = (2.0**-8, -128)
"""Step and zero point."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One model of a single operator, or of two that make one function.

    Attributes:
        name: of the file.
        what: in words.
        probe: the operator in float, with random weights from a fixed seed.
        kernels: of the runtime that are counted; conversions and changes of layout around them are not.
        per: what the count is divided by.
        gated: the operator is a gate; a product of its input with it follows.
        on_codes: between a DQ and a Q, where the converter would leave it in float.
    """

    name: str
    what: str
    probe: Probe
    kernels: tuple[str, ...]
    per: str
    gated: bool = False
    on_codes: bool = False


def _conv(inner: int, outer: int, side: Shape, size: Shape = (1, 1), stride: Shape = (1, 1), pads: Shape = (0, 0, 0, 0)) -> Probe:
    """``side`` is height and width of the image."""
    return Probe("Conv", ((1, inner, *side),), ((outer, inner, *size), (outer,)), {"strides": list(stride), "pads": list(pads)})


def _scores(depth: int) -> Probe:
    return Probe("MatMul", ((4, 4, 256, depth), (4, 4, depth, 256)))


_CONV, _PRODUCT = ("QLinearConv",), ("MatMulIntegerToFloat",)
_SQUARE = (1, 1, 1, 1)
_ROWS, _IMAGE, _TOKENS = (4, 4, 256, 256), (1, 64, 64, 32), (1, 1024, 64)

CASES: tuple[Case, ...] = (
    Case("conv_1x1_48", "1x1, 48 to 192 channels, 56 x 56", _conv(48, 192, (56, 56)), _CONV, MAC),
    Case("conv_1x1_128", "1x1, 128 to 64 channels, 32 x 32", _conv(128, 64, (32, 32)), _CONV, MAC),
    Case(
        "conv_1x2_64",
        "1x2, 64 to 64 channels, 32 x 32: the same sums, requantized in the kernel",
        _conv(64, 64, (32, 33), (1, 2)),
        _CONV,
        MAC,
    ),
    Case("conv_3x3_48", "3x3, 48 to 48 channels, 32 x 32", _conv(48, 48, (32, 32), (3, 3), pads=_SQUARE), _CONV, MAC),
    Case(
        "conv_3x3_64",
        "3x3, 64 to 64 channels, 32 x 32: the first depth requantized in the kernel",
        _conv(64, 64, (32, 32), (3, 3), pads=_SQUARE),
        _CONV,
        MAC,
    ),
    Case("sigmoid", "Sigmoid", Probe("Sigmoid", (_IMAGE,)), ("QLinearSigmoid",), ELEMENT),
    Case("silu", "x * Sigmoid(x)", Probe("Sigmoid", (_IMAGE,)), ("QLinearSigmoid", "QLinearMul"), ELEMENT, gated=True),
    Case(
        "relu",
        "Relu, which is a Clip of codes, for what such an operator takes in vector instructions",
        Probe("Relu", (_IMAGE,)),
        ("Clip", "Relu", "Max"),
        ELEMENT,
    ),
    Case("stem", "3x3 with stride 2, 3 to 16 channels, 256 x 256", _conv(3, 16, (256, 256), (3, 3), (2, 2), _SQUARE), _CONV, MAC),
    Case(
        "stem_unfolded",
        "1x1, 27 to 16 channels, 128 x 128: the same sums of an image that is unfolded already",
        _conv(27, 16, (128, 128)),
        _CONV,
        MAC,
    ),
    Case("scores_16", "Q K^T, 16 heads of 256 tokens, 16 deep", _scores(16), _PRODUCT, MAC),
    Case("scores_32", "the same, 32 deep", _scores(32), _PRODUCT, MAC),
    Case("scores_64", "the same, 64 deep", _scores(64), _PRODUCT, MAC),
    Case("linear", "Gemm, 1024 rows, 64 to 192", Probe("Gemm", ((1024, 64),), ((64, 192), (192,))), ("QGemm",), MAC),
    Case("linear_as_conv", "1x1, 64 to 192 channels, 32 x 32: the same sums", _conv(64, 192, (32, 32)), _CONV, MAC),
    Case("quantize", "QuantizeLinear of 48 x 60 x 50 numbers", Probe("Relu", ((1, 48, 60, 50),)), ("QuantizeLinear",), ELEMENT),
    Case("softmax", "Softmax in float, rows of 256", Probe("Softmax", (_ROWS,), (), {"axis": -1}), ("Softmax",), ELEMENT),
    Case("softmax_codes", "the same on codes", Probe("Softmax", (_ROWS,), (), {"axis": -1}), ("QLinearSoftmax",), ELEMENT, on_codes=True),
    Case(
        "layer_norm",
        "LayerNormalization, 1024 tokens of 64",
        Probe("LayerNormalization", (_TOKENS,), ((64,), (64,)), {"axis": -1}),
        ("LayerNormalization",),
        ELEMENT,
    ),
    Case(
        "instance_norm",
        "InstanceNormalization of the same tokens: the same without factors and offsets of channels",
        Probe("InstanceNormalization", (_TOKENS,), ((1024,), (1024,))),
        ("InstanceNormalization",),
        ELEMENT,
    ),
)


def model_of(case: Case, place: int = 0) -> onnx.ModelProto:
    """A case as a model in QDQ form, as the converter writes it, with all of it in integer that has an integer kernel.

    Args:
        place: in the names of its tensors and nodes, so that models can be joined.
    """
    model = probe_model([case.probe], first=place)
    if case.gated or case.on_codes:
        return _between_codes(_gated(model) if case.gated else ir.to_proto(model))
    return integers(model, seen_in(model), find_target(_TARGET))[0]


def _gated(model: ir.Model) -> onnx.ModelProto:
    """The input times what one node makes of it."""
    proto: onnx.ModelProto = ir.to_proto(model)
    (gate,), (made,) = proto.graph.node, proto.graph.output
    product = helper.make_node("Mul", [gate.input[0], gate.output[0]], [f"{gate.name}_product"], name=f"{gate.name}_times")
    proto.graph.node.append(product)
    made.name = product.output[0]
    return proto


def _between_codes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model of one input with a Q and a DQ behind it and behind every node."""
    graph = proto.graph
    (x,), (y,) = graph.input, graph.output
    numbers: dict[str, str] = {}
    nodes = _pair(graph, x.name, numbers, "Input")
    for node in graph.node:
        node.input[:] = [numbers[name] for name in node.input]
        nodes += [node, *_pair(graph, node.output[0], numbers, node.op_type)]
    y.name = numbers[y.name]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)
    return proto


def _pair(graph: onnx.GraphProto, tensor: str, numbers: dict[str, str], op_type: str) -> list[onnx.NodeProto]:
    """A Q and a DQ behind a tensor that an operator of this type made; ``numbers`` learns what the DQ writes."""
    scale, zero_point = _BETWEEN_0_AND_1 if op_type in ("Sigmoid", "Softmax") else (_STEP, 0)
    constants, codes = [f"{tensor}_scale", f"{tensor}_zero"], f"{tensor}_codes"
    for name, array in zip(constants, (np.float32(scale), np.int8(zero_point)), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    numbers[tensor] = f"{tensor}_numbers"
    quantize = helper.make_node("QuantizeLinear", [tensor, *constants], [codes], name=f"{tensor}_q")
    return [quantize, helper.make_node("DequantizeLinear", [codes, *constants], [numbers[tensor]], name=f"{tensor}_dq")]


def joined(models: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """Models side by side in one; no name is in two of them."""
    result = onnx.ModelProto()
    result.CopyFrom(models[0])
    for model in models[1:]:
        for part in ("node", "input", "output", "initializer", "value_info"):
            getattr(result.graph, part).extend(getattr(model.graph, part))
    return result


def amount(case: Case) -> int:
    """Elements of the output, or multiply-accumulates."""
    (output,) = ir.to_proto(probe_model([case.probe])).graph.output
    elements: int = math.prod(side.dim_value for side in output.type.tensor_type.shape.dim)
    return elements * depth(case) if case.per == MAC else elements


def depth(case: Case) -> int:
    """Multiply-accumulates of each element of the output; 1 of an operator that multiplies none."""
    if case.per != MAC:
        return 1
    if case.probe.op_type == "Conv":
        return math.prod(case.probe.constants[0][1:])
    return case.probe.shapes[0][-1]
