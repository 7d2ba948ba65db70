"""What any file will cost on a target, by the target's prices: of the kernels that the runtime makes of it, whoever wrote it.

Our own conversions are priced as planned (:mod:`converter.partition.cost_model`); what other tools write has no plan.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime

from converter.errors import ModelError
from converter.forms.convolved import CHANNELS_FIRST, CHANNELS_LAST
from converter.graph.queries import attributes, constant
from converter.runtime.session import Feed, open_session
from converter.targets import Target
from converter.targets.costs import features, form_costs, kind_of
from converter.verify.integer_coverage import profile

__all__ = ["file_cost", "kernel_cost"]

Shapes = Mapping[str, tuple[int, ...]]

_INTEGER = {
    **dict.fromkeys(("QLinearConv", "ConvInteger"), "Conv"),
    "QGemm": "Gemm",
    **dict.fromkeys(("QLinearMatMul", "MatMulIntegerToFloat", "MatMulInteger"), "MatMul"),
    **{
        f"QLinear{name}": name
        for name in ("Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "ReduceMean", "Sigmoid")
    },
    **{f"QLinear{name}": name for name in ("Softmax", "Where")},
}
"""Kernels on codes, and the operators that they compute."""

_FLOAT = {
    **dict.fromkeys(("FusedConv", "NhwcFusedConv"), "Conv"),
    "FusedGemm": "Gemm",
    "FusedMatMul": "MatMul",
    **dict.fromkeys(("BiasGelu", "FastGelu", "QuickGelu"), "Gelu"),
    "SkipLayerNormalization": "LayerNormalization",
}
"""Float kernels of the runtime, and the operator that takes most of their time."""

_FIRST_STEP = 3
"""Inputs of one operand of most kernels on codes: codes, scale and zero point."""

_CODES = ("int8", "uint8")
_NUMBERS = ir.TensorType(ir.DataType.FLOAT)


def file_cost(model: onnx.ModelProto, feed: Feed, settings: Mapping[str, str], target: Target) -> float:
    """The cost of one inference, in the target's unit.

    Args:
        model: float or quantized.
        feed: one sample.
        settings: of the session, under which this machine's runtime makes the kernels that the target's would.
        target: for the prices. They are those of signed codes; a kernel on codes that has no price there costs what the float one does.

    Raises:
        ModelError: the model does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimised = _optimised(model, settings, Path(folder) / "optimised.onnx")
        session = open_session(optimised, threads=1, optimise=False, profile_prefix=Path(folder) / "profile")
        events = {event["name"].removesuffix("_kernel_time"): event["args"] for event in profile(session, feed)}
    shapes: dict[str, tuple[int, ...]] = {name: array.shape for name, array in feed.items()}
    codes: set[str] = set()
    for node in optimised.graph.node:
        if node.name in events:
            for name, entry in zip(node.output, events[node.name]["output_type_shape"], strict=False):
                ((kind, shape),) = entry.items()
                shapes[name] = tuple(shape)
                codes |= {name} if kind in _CODES else set()
    graph = ir.from_proto(optimised).graph
    counted = [node for node in graph if node.name in events and not changes_layout(node)]
    return target.call + sum(kernel_cost(node, shapes, codes, target) for node in counted)


def _optimised(model: onnx.ModelProto, settings: Mapping[str, str], path: Path) -> onnx.ModelProto:
    """The graph as the runtime will run it, but in the layout of the file, with a name for each node."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exceptions share no base below this one
        raise ModelError(f"ONNX Runtime does not load the model: {str(error).splitlines()[0][:200]}") from error
    result = onnx.load(path)
    for place, node in enumerate(result.graph.node):
        node.name = f"{node.op_type}_at_{place}"
    return result


def changes_layout(node: ir.Node) -> bool:
    """True for a Transpose beside a convolution of codes, with at most a Reshape between, to channels first or last.

    The runtime takes these out when it gives convolutions channels last, which it does behind the graph that is looked at here.
    """
    perm = tuple(attributes(node).get("perm", ())) if node.op_type == "Transpose" else ()
    if perm == CHANNELS_FIRST:
        source = node.inputs[0]
        return _all_read_by(node, "QLinearConv") or _maker(source, "Reshape", "Transpose", "QLinearConv")
    onward = [reader for use in node.outputs[0].uses() if (reader := use.node).op_type == "Reshape"] if perm == CHANNELS_LAST else []
    return perm == CHANNELS_LAST and (_maker(node.inputs[0], "QLinearConv") or any(map(_leads_to_convolution, onward)))


def _leads_to_convolution(reshape: ir.Node) -> bool:
    return any(use.node.op_type == "Transpose" and _all_read_by(use.node, "QLinearConv") for use in reshape.outputs[0].uses())


def _all_read_by(node: ir.Node, op_type: str) -> bool:
    uses = node.outputs[0].uses()
    return bool(uses) and all(use.node.op_type == op_type for use in uses)


def _maker(value: ir.Value | None, *op_types: str) -> bool:
    """True if a value comes from these operators, the last of them first."""
    for op_type in op_types:
        maker = None if value is None else value.producer()
        if maker is None or maker.op_type != op_type:
            return False
        value = maker.inputs[0]
    return True


def kernel_cost(node: ir.Node, shapes: Shapes, codes: set[str], target: Target) -> float:
    """The price of one kernel.

    Args:
        node: of the graph that the runtime has optimised.
        shapes: of computed tensors.
        codes: names of those that hold codes.
        target: for the prices.
    """
    first = node.inputs[0] if node.inputs else None
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        array = constant(first)
        size = math.prod(shapes.get(str(node.outputs[0].name), ()) if array is None else array.shape)
        return target.quantize(size) if node.op_type == "QuantizeLinear" else target.dequantize(size)
    on_codes = node.op_type in _INTEGER or (first is not None and first.name in codes)
    plain = _plain(node)
    floats, integers = form_costs(kind_of(plain), features(plain, shapes), target)
    return integers if on_codes and integers is not None else floats


def _plain(node: ir.Node) -> ir.Node:
    """The standard operator that a kernel computes, on its operands alone."""
    op_type = _INTEGER.get(node.op_type) or _FLOAT.get(node.op_type, node.op_type)
    inputs = list(node.inputs)
    if node.op_type == "QLinearConcat":
        inputs = inputs[2::_FIRST_STEP]
    elif node.op_type in ("MatMulIntegerToFloat", "MatMulInteger", "ConvInteger"):
        inputs = inputs[:2]
    elif node.op_type in _INTEGER:
        inputs = inputs[: _FIRST_STEP + 1 : _FIRST_STEP] if op_type in _TWO else inputs[:1]
    # weights that are turned into numbers at every inference are multiplied by the same kernels as stored ones
    inputs = [_stored(v) if place and op_type in _TWO else v for place, v in enumerate(inputs)]
    # prices count what is read in float
    inputs = [v if v is None or constant(v) is not None else ir.Value(name=str(v.name), type=_NUMBERS, shape=v.shape) for v in inputs]
    outputs = [ir.Value(name=str(output.name), type=_NUMBERS) for output in node.outputs]
    return ir.Node("", op_type, inputs, list(node.attributes.values()), outputs=outputs)


def _stored(value: ir.Value | None) -> ir.Value | None:
    """The codes behind a DequantizeLinear of constants, else the value itself."""
    maker = None if value is None else value.producer()
    if maker is None or maker.op_type != "DequantizeLinear" or constant(maker.inputs[0]) is None:
        return value
    return maker.inputs[0]


_TWO = ("Add", "Conv", "Gemm", "MatMul", "Mul")
"""Operators of two operands."""
