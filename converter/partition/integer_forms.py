"""Which operators the runtime could run in integer, in which form, and why the others cannot. Decides nothing.

The forms are those that ONNX Runtime's CPU provider turns into integer kernels when Q and DQ stand around the
operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from converter.calibration.observer import Observations
from converter.graph.macs import macs_of
from converter.graph.marks import TWIN_SUM
from converter.graph.operator_sets import MOVEMENT
from converter.graph.queries import attributes, constant, data_inputs, is_float, is_graph_output, relabel_factor, scalar, sole_consumer
from converter.partition.float_only import STEPS, flaws_of, reach, weights_vanish
from converter.plan.choice import Constant
from converter.plan.records import EXCLUDED
from converter.quantization.gated_activations import Gate, fit_gate
from converter.targets import Target
from converter.targets.costs import features, form_costs, kind_of
from converter.torch_backend import ops as torch_ops
from converter.transforms.equalization.apply import inserted_factors
from converter.transforms.nonuniform.marks import curve_of, entering, reads_curve, reads_logarithms
from converter.transforms.sigmoids.piecewise_linear import Ramp

__all__ = ["PASSING", "Form", "Offer", "Refusal", "offer", "passes_codes", "relabel_factor"]

Form = Literal["weighted", "product", "pointwise", "movement", "concat", "absorbed", "relabel", "hardswish", "gelu", "requantize"]
"""How the integer form is spelled.

weighted: Conv, Gemm, MatMul with constant weights. product: MatMul of two computed tensors. pointwise: any operator
that the runtime replaces one for one. movement: the output keeps the input's grid. concat: inputs may differ.
absorbed: a clamp that the grid of the producer's output does. relabel: multiplication by a positive constant, which
only renames the scale. hardswish: an addition and a multiplication. gelu: a sigmoid and a multiplication. requantize: a copy
with a grid of its own.
"""

PASSING: tuple[Form, ...] = ("movement", "relabel")
"""Forms whose output holds the codes of their one computed input."""

_POINTWISE = frozenset(["Sigmoid", "LeakyRelu"])
_SLOW = frozenset(["AveragePool", "MaxPool", "Softmax"])

_CURVES = {
    "log2": "it is part of a logarithmic grid, whose steps are not equal",
    "log-sqrt2": "it is part of a logarithmic grid, whose steps are not equal",
    "log-int-softmax": "it is part of a softmax by integer exponentials, of which the runtime has no kernel",
    "partner": "it rounds what is multiplied with numbers on a logarithmic grid",
    "power-of-two": "it is a grid with one scale per channel in front of an operator that has no integer kernel",
    "twin": "it splits a tensor in two with a grid each",
    TWIN_SUM: "it adds what the two halves of a tensor give, and only the sum is rounded",
}

_CONTAINER_BITS = 8
"""Of what is multiplied by no weight, such as the constants of Add and Mul: narrower codes would gain nothing."""

_TOO_SMALL = "some of its weights are too small for any scale"


_LARGEST_MULTIPLIER = 4.0
"""Of the integer GlobalAveragePool. The runtime fails at 256; methods may bring the grids apart by some ten times."""


@dataclass(frozen=True)
class Offer:
    """An operator that could run in integer.

    Attributes:
        form: see :data:`Form`.
        constants: constant operands to be stored as integers, by input index.
        may_write_float: the integer kernel can write float numbers directly.
        float_cost: of its float form, in the target's unit.
        integer_cost: of its integer form.
        macs: multiply-accumulates at the calibrated shape.
        gate: of the form ``gelu``; or a ramp for a sigmoid.
    """

    form: Form
    constants: dict[int, Constant] = field(default_factory=dict)
    may_write_float: bool = False
    float_cost: float = 0.0
    integer_cost: float = 0.0
    macs: int = 0
    gate: Gate | Ramp | None = None


@dataclass(frozen=True)
class Refusal:
    """An operator that stays float.

    Attributes:
        reason: why.
        macs: multiply-accumulates at the calibrated shape.
        final: what it reads and writes cannot be quantized either.
    """

    reason: str
    macs: int = 0
    final: bool = False


_SEPARATE: tuple[Form, ...] = ("pointwise", "hardswish", "gelu")
"""Forms of operators without weights, which lose nothing but time in float."""

_ROUNDED_LATER = Refusal("its result is rounded on a grid that is not uniform, and on no other before", final=True)
_LATER = ("power-of-two", "twin")


def offer(
    model: ir.Model, seen: Observations, target: Target, *, activation_bits: int, weight_bits: int, excluded: Collection[str] = ()
) -> dict[str, Offer | Refusal]:
    """Offer or refuse each operator that works on float tensors, by node name, in graph order.

    Args:
        model: canonical float model.
        seen: for the shapes.
        target: for its types and costs.
        activation_bits: 4 to 8, of what enters layers.
        weight_bits: 4 to 8; a target may allow fewer beside activations of that width.
        excluded: names of canonical nodes that the user keeps float.
    """
    shapes = {name: stats.shape for name, stats in seen.tensors.items()}
    context = _Context(seen, target, activation_bits, weight_bits, shapes)
    result: dict[str, Offer | Refusal] = {}
    flaws = flaws_of(model, seen)
    rounded_later, curved = entering(model, _LATER), entering(model, (*_LATER, "log2", "log-sqrt2"))
    for node in model.graph:
        if not any(is_float(o) for o in node.outputs) or constant(node.outputs[0]) is not None:
            continue
        name = str(node.name)
        if name in excluded:
            result[name] = Refusal(EXCLUDED, macs_of(node, shapes), final=True)
        elif curve_of(node):
            result[name] = Refusal(_CURVES[curve_of(node)], final=True)
        elif not list(data_inputs(node)):
            result[name] = Refusal("none of its float inputs is computed", final=True)
        elif flaw := next((flaws[n] for n in _tensors(node) if n in flaws), ""):
            result[name] = Refusal(flaw, macs_of(node, shapes), final=True)
        else:
            entry = _on_target(_OFFERS.get(node.op_type, _no_kernel)(node, context, result), node)
            if isinstance(entry, Offer):
                result[name] = _ROUNDED_LATER if name in rounded_later and entry.form in _SEPARATE else entry
            else:  # what it reads or writes is on a grid of its own, which one around the operator would undo
                result[name] = replace(entry, final=entry.final or name in curved or reads_curve(node))
    return result


def _tensors(node: ir.Node) -> list[str]:
    """Names of the computed float tensors that a node reads and writes."""
    return [str(v.name) for _, v in data_inputs(node)] + [str(o.name) for o in node.outputs if is_float(o)]


def _on_target(entry: Offer | Refusal, node: ir.Node) -> Offer | Refusal:
    if isinstance(entry, Offer) and math.isinf(entry.integer_cost):
        return Refusal(f"the target has no integer kernel for {node.op_type}", entry.macs)
    return entry


@dataclass(frozen=True)
class _Context:
    seen: Observations
    target: Target
    activation_bits: int
    weight_bits: int
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def dense_weight_bits(self) -> int:
        return self.target.dense_weight_bits(self.activation_bits)

    def cost(self, node: ir.Node, kind: str = "", macs: int = 0) -> tuple[float, float]:
        """Cost of the float and of the integer form, which is infinite if the target has none.

        Args:
            node: whose shape counts.
            kind: as the target's costs have it; by default what the node is.
            macs: multiply-accumulates, if the form has others than the node.
        """
        found = features(node, self.shapes) | ({"mac": float(macs)} if macs else {})
        floats, integers = form_costs(kind or kind_of(node), found, self.target)
        return floats, math.inf if integers is None else integers


Earlier = Mapping[str, Offer | Refusal]


def _size(name: str, seen: Observations) -> int:
    return math.prod(seen.tensors[name].shape) if name in seen.tensors else 0


def _no_kernel(node: ir.Node, context: _Context, _: Earlier) -> Offer | Refusal:
    return Refusal(f"ONNX Runtime's CPU provider has no integer kernel for {node.op_type}", macs_of(node, context.shapes))


def _slow(node: ir.Node, _: _Context, __: Earlier) -> Offer | Refusal:
    return Refusal(f"the integer kernel for {node.op_type} is several times slower than float")


def _conv(node: ir.Node, context: _Context, _: Earlier) -> Offer | Refusal:
    weight = constant(node.inputs[1])
    macs = macs_of(node, context.shapes)
    if weight is None:
        return Refusal("its weights are computed", macs)
    if len(node.inputs) > 2 and node.inputs[2] is not None and constant(node.inputs[2]) is None:
        return Refusal("its bias is computed", macs)
    if weight.ndim not in (3, 4):
        return Refusal(f"no integer kernel for a convolution in {weight.ndim - 2} dimensions", macs)
    if weights_vanish(weight.reshape(len(weight), -1), node, context.seen):
        return Refusal(_TOO_SMALL, macs)
    depthwise = weight.shape[1] == 1 and attributes(node).get("group", 1) == weight.shape[0]
    widest = context.target.depthwise_weight_bits if depthwise else context.dense_weight_bits
    float_cost, integer_cost = context.cost(node)
    weights = Constant(weight, 0, min(context.weight_bits, widest))
    return Offer("weighted", {1: weights}, False, float_cost, integer_cost, macs)


def _linear(node: ir.Node, context: _Context, earlier: Earlier) -> Offer | Refusal:
    weight = constant(node.inputs[1])
    macs = macs_of(node, context.shapes)
    if weight is None:
        return _product(node, context, earlier) if node.op_type == "MatMul" else Refusal("its weights are computed", macs)
    if weight.ndim != 2:
        return Refusal(f"its constant operand has {weight.ndim} dimensions instead of 2", macs)
    attrs = attributes(node)
    if attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) != 1.0 or attrs.get("transA", 0):
        return Refusal("the integer kernel takes no alpha, beta or transposed input", macs)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = constant(node.inputs[2])
        if bias is None:
            return Refusal("its bias is computed", macs)
        if bias.ndim != 1:
            return Refusal("its bias is not one number per output", macs)
    axis = 0 if attrs.get("transB", 0) else 1
    if weights_vanish(weight if axis == 0 else weight.T, node, context.seen):
        return Refusal(_TOO_SMALL, macs)
    float_cost, integer_cost = context.cost(node)
    weights = Constant(weight, axis, min(context.weight_bits, context.dense_weight_bits))
    return Offer("weighted", {1: weights}, True, float_cost, integer_cost, macs)


def _product(node: ir.Node, context: _Context, _: Earlier) -> Offer | Refusal:
    macs = macs_of(node, context.shapes)
    if constant(node.inputs[0]) is not None:
        return Refusal("its left operand is a constant", macs)
    if reads_logarithms(node):
        return Refusal("an operand lies on a logarithmic grid, whose steps are not equal", macs)
    if any(v is None or len(context.seen.tensors[str(v.name)].shape) < 2 for v in node.inputs):
        return Refusal("an operand is not a matrix", macs)
    float_cost, integer_cost = context.cost(node)
    return Offer("product", {}, True, float_cost, integer_cost, macs)


def _binary(node: ir.Node, context: _Context, _: Earlier) -> Offer | Refusal:
    if inserted_factors(node) is not None:
        return Refusal("its factors become scales of the Q behind it", final=True)
    if relabel_factor(node) is not None:
        return Offer("relabel", {}, False, context.cost(node)[0], 0.0)
    constants = {}
    for index, value in enumerate(node.inputs):
        array = constant(value)
        if array is not None:
            if node.op_type == "Add" and _drowns(array, node, context.seen):
                return Refusal(
                    "its constant, a mask perhaps, is so large that no step of the grid would be left for the other operand", final=True
                )
            constants[index] = Constant(array, None, _CONTAINER_BITS, context.target.signed_activations)
    return Offer("pointwise", constants, False, *context.cost(node))


def _drowns(array: npt.NDArray[Any], node: ir.Node, seen: Observations) -> bool:
    ((_, value),) = data_inputs(node)
    stats = seen.tensors[str(value.name)]
    return bool(np.abs(array).max(initial=0.0) > STEPS * reach(stats) > 0.0)


def _pointwise(node: ir.Node, context: _Context, _: Earlier) -> Offer | Refusal:
    return Offer("pointwise", {}, False, *context.cost(node))


def _global_average(node: ir.Node, context: _Context, _: Earlier) -> Offer | Refusal:
    ((_index, value),) = data_inputs(node)
    before, after = (context.seen.tensors[str(v.name)] for v in (value, node.outputs[0]))
    averaged = math.prod(before.shape[2:])
    if reach(before) > _LARGEST_MULTIPLIER * reach(after) * averaged:
        return Refusal("its averages are too small beside its inputs for the integer kernel's multiplier")
    return Offer("pointwise", {}, False, *context.cost(node))


def _hardswish(node: ir.Node, context: _Context, _: Earlier) -> Offer | Refusal:
    return Offer("hardswish", {}, False, *context.cost(node))


def _gelu(node: ir.Node, context: _Context, _: Earlier) -> Offer | Refusal:
    (x,), out = [str(v.name) for _, v in data_inputs(node)], context.seen.tensors[str(node.outputs[0].name)]

    def function(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return torch_ops.apply("Gelu", [torch.from_numpy(values)], attributes(node))[0].numpy()

    gate, error = fit_gate(context.seen.tensors[x].sample, function)
    if error > (reach(out) / STEPS) ** 2 / 12.0:  # what rounding its output costs anyway
        return Refusal("on what it reads, x times a sigmoid is not as close to it as a grid of 8 bits")
    float_cost, integer_cost = context.cost(node)
    return Offer("gelu", {}, False, float_cost, integer_cost, gate=gate)


def passes_codes(node: ir.Node) -> bool:
    """True if the integer form of a node would be one of :data:`PASSING`."""
    return (node.op_type in MOVEMENT and not _obstacle(node)) or relabel_factor(node) is not None


def _obstacle(node: ir.Node) -> str:
    """Why an operator that moves data cannot move codes; empty if it can."""
    if node.op_type == "Resize" and attributes(node).get("mode", "nearest") != "nearest":
        return "interpolating Resize is not faster in integer"
    if [i for i, _ in data_inputs(node)] != [0]:
        return "its data operand is a constant"
    if node.op_type == "Split" and any(not o.uses() and not o.is_graph_output() for o in node.outputs):
        return "one of its outputs is not used, and the integer form needs them all"
    return ""


def _movement(node: ir.Node, context: _Context, _: Earlier) -> Offer | Refusal:
    obstacle = _obstacle(node)
    return Refusal(obstacle) if obstacle else Offer("movement", {}, False, *context.cost(node))


def _requantize(node: ir.Node, context: _Context, _: Earlier) -> Offer | Refusal:
    # two grids of 8 bits in a row the runtime would merge into one of its own making
    if context.activation_bits == _CONTAINER_BITS or is_graph_output(node.outputs[0]):
        return Refusal("a copy needs no kernel", final=True)
    size = _size(str(node.outputs[0].name), context.seen)
    return Offer("requantize", {}, False, 0.0, context.target.dequantize(size) + context.target.quantize(size))


def _concat(node: ir.Node, context: _Context, _: Earlier) -> Offer | Refusal:
    if len(list(data_inputs(node))) != len(node.inputs):
        return Refusal("one of its inputs is a constant")
    return Offer("concat", {}, False, *context.cost(node))


def _clamp(node: ir.Node, context: _Context, earlier: Earlier) -> Offer | Refusal:
    x = node.inputs[0]
    producer = x.producer() if x is not None else None
    before = earlier.get(str(producer.name)) if producer is not None else None
    if node.op_type == "Clip" and any(v is not None and scalar(v) is None for v in node.inputs[1:]):
        return Refusal("its limits are computed")
    if not isinstance(before, Offer) or before.form not in ("weighted", "product", "pointwise"):
        return Refusal(f"{node.op_type} runs in integer only as the end of an integer operator that has a grid of its own")
    if x is None or sole_consumer(x) is not node:
        return Refusal("what it clamps is read by others too, so it cannot become part of the operator before it")
    return Offer("absorbed", {}, False, *context.cost(node))


_Rule = Callable[[ir.Node, _Context, Earlier], Offer | Refusal]
_OFFERS: Mapping[str, _Rule] = {
    "Conv": _conv,
    "Gemm": _linear,
    "MatMul": _linear,
    "Add": _binary,
    "Mul": _binary,
    "GlobalAveragePool": _global_average,
    "HardSwish": _hardswish,
    "Gelu": _gelu,
    "Concat": _concat,
    "Identity": _requantize,
    "Relu": _clamp,
    "Clip": _clamp,
    **dict.fromkeys(_POINTWISE, _pointwise),
    **dict.fromkeys(MOVEMENT, _movement),
    **dict.fromkeys(_SLOW, _slow),
}
