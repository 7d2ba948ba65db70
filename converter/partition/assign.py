"""Place: decide which offered operators run in integer, as a minimum cut, and write_assignment every tensor's tensor_plan.

Each operator is integer or float and pays the cost of its form. Each tensor pays

* its Q once, if its producer is float (or it is a model input) and some reader is integer;
* its DQ once, if its producer is integer and some reader is float (or it is a model output). A producer that can write
  float numbers itself saves that, unless some other reader is integer.

If accuracy has a price, an operator in integer pays for the error of its constants, and a tensor for that of its grid, once,
if anybody writes or reads codes of it. Who only moves codes adds no error to those that it was given.

A form that can only write codes does not enter the cut: that somebody reads codes would be a reward, which no capacity expresses for
several readers. Where codes are written in the end, it is taken if it costs less.

The cheapest assignment is a minimum s-t cut, solved exactly, of a graph with one vertex per operator (source side:
integer) and up to three per tensor: ``some`` lies on the source side if some reader is integer, ``all`` only if all readers
are, ``coded`` if there are codes of it.

A copy (``requantize``) is looked through: its readers count as readers of the original. So what runs in integer does not
depend on the width of activations, and conversions of different widths can be compared. A copy follows from the rest: it
is integer where it stands between an operator that writes codes and one that reads them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, replace
from types import MappingProxyType
from typing import Literal

import onnx_ir as ir

from converter.calibration.observer import CalibrationStatistics
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.forms.movement import passed_input
from converter.forms.registry import PASSING
from converter.forms.requantize import pixel_params
from converter.forms.rescale import relabelled
from converter.graph.queries import constant, consumers, is_float, is_graph_output, relabel_offset, sole_consumer
from converter.partition.cost_model import predict
from converter.partition.max_flow import minimum_cut
from converter.partition.policy import FOR_ACCURACY, LATENCY, Placed, Placement, Placer, added_loss, affordable, penalties
from converter.plan.choice import Choice
from converter.plan.records import OpPlan, Plan, TensorPlan, approximation_of
from converter.quantization.bit_widths import BitWidths
from converter.quantization.parameters import QuantParams
from converter.targets import Target
from converter.transforms.sigmoids.piecewise_linear import approximation_params

__all__ = [
    "CutGraph",
    "cut",
    "cut_graph",
    "everything",
    "explained",
    "fake_quantizable",
    "most_cost",
    "place",
    "placer",
    "write_assignment",
]

Vertex = str | tuple[str, str]
"""``source``, ``sink``, or what it says of which operator or tensor."""

CutGraph = dict[tuple[Vertex, Vertex], float]
"""Capacities of directed edges; infinite for those that must not be cut."""

_CHEAPER = "cheaper in float on this target, given its neighbours"
_NEVER = 1e3
"""Times the cost of all float operators that an operator costs in float which must run in integer."""

_COPY = "a copy for layers, which needs no node: it is quantized from float numbers"


def place(
    model: ir.Model,
    offers: Mapping[str, SupportedForm | UnsupportedForm],
    choice: Choice,
    seen: CalibrationStatistics,
    target: Target,
    *,
    method: str,
    bits: BitWidths,
    placement: Placement = LATENCY,
    cheaper: Mapping[str, SupportedForm] = MappingProxyType({}),
) -> Plan:
    """Turn a method's choice of grids into a complete plan.

    Args:
        model: canonical float model.
        offers: what could run in integer.
        choice: grids of all tensors and constants, and what they add to the loss.
        seen: for the sizes of tensors.
        target: for the costs of Q and DQ.
        method: name of the method, recorded in the plan.
        bits: recorded in the plan.
        placement: what it shall be best at.
        cheaper: for some operators, a second offer that costs less; their error is that of this one.
    """
    empty = Plan(method, bits, target.name, {}, {})
    if placement.everything:
        integer = everything(model, offers)
        fake_quantized = fake_quantizable(offers) if placement.full else frozenset[str]()
        return write_assignment(model, offers, choice, integer, empty, fake_quantized)
    placed = placer(model, offers, choice, seen, target, method=method, bits=bits, cheaper=cheaper)
    fastest = placed(0.0)
    cheapest = placed(placement.price) if placement.price else fastest
    most = most_cost(model, seen, target)
    if cheapest.cost > most:
        return write_assignment(model, offers, choice, frozenset(), empty)
    return explained(affordable(placed, cheapest, placement, most).plan, fastest.plan)


def placer(
    model: ir.Model,
    offers: Mapping[str, SupportedForm | UnsupportedForm],
    choice: Choice,
    seen: CalibrationStatistics,
    target: Target,
    *,
    method: str,
    bits: BitWidths,
    cheaper: Mapping[str, SupportedForm] = MappingProxyType({}),
) -> Placer:
    """What gives the best placement at any price of accuracy; arguments as for :func:`place`."""
    empty = Plan(method, bits, target.name, {}, {})
    shapes = {name: stats.shape for name, stats in seen.tensors.items()}
    float_cost = predict(model, None, {}, shapes, target).total

    def placed(price: float, floats: Collection[str] = (), integers: Collection[str] = ()) -> Placed:
        price *= float_cost
        rough = {
            name: entry
            for name, entry in cheaper.items()
            if _worthwhile(offers[name], entry, price * choice.weight_sensitivity.get(name, 0.0))
        }
        some = _forced({**offers, **rough}, floats, integers)
        weight_sensitivity = {name: error for name, error in choice.weight_sensitivity.items() if name in rough or name not in cheaper}
        integer = cut(model, some, seen, target, penalties(price, weight_sensitivity), penalties(price, choice.activation_sensitivity))
        plan = write_assignment(model, some, choice, integer, empty)
        return Placed(
            plan, predict(model, plan, some, shapes, target).total, added_loss(plan, choice.activation_sensitivity, weight_sensitivity)
        )

    return placed


def most_cost(model: ir.Model, seen: CalibrationStatistics, target: Target) -> float:
    """What a placement may cost at most, so that integer operators save as much as the target's margin asks for."""
    shapes = {name: stats.shape for name, stats in seen.tensors.items()}
    return (1.0 - target.margin) * predict(model, None, {}, shapes, target).total


def _forced(
    offers: Mapping[str, SupportedForm | UnsupportedForm], floats: Collection[str], integers: Collection[str]
) -> Mapping[str, SupportedForm | UnsupportedForm]:
    """Offers that leave some operators no choice."""
    found = dict(offers)
    dear = sum(entry.float_cost for entry in offers.values() if isinstance(entry, SupportedForm)) + 1.0
    for name in floats:
        found[name] = UnsupportedForm(FOR_ACCURACY)
    for name in integers:
        entry = found[name]
        if isinstance(entry, SupportedForm):
            found[name] = replace(entry, float_cost=_NEVER * dear)
    return found


def explained(plan: Plan, fastest: Plan) -> Plan:
    """The same plan, which says what is float for another reason than speed."""
    given_up = [name for name, op in plan.ops.items() if op.reason == _CHEAPER and fastest.ops[name].runs == "integer"]
    return replace(plan, ops={**plan.ops, **{name: replace(plan.ops[name], reason=FOR_ACCURACY) for name in given_up}})


def _worthwhile(plain: SupportedForm | UnsupportedForm, rough: SupportedForm, error_cost: float) -> bool:
    return isinstance(plain, SupportedForm) and plain.integer_cost - rough.integer_cost >= error_cost


def everything(model: ir.Model, offers: Mapping[str, SupportedForm | UnsupportedForm]) -> frozenset[str]:
    """Names of all operators that can run in integer."""
    return _with_copies(model, offers, {n for n, e in offers.items() if isinstance(e, SupportedForm) and e.form != "requantize"})


def fake_quantizable(offers: Mapping[str, SupportedForm | UnsupportedForm]) -> frozenset[str]:
    """Names of all operators that have no integer form, but could read and write codes."""
    return frozenset(n for n, e in offers.items() if isinstance(e, UnsupportedForm) and not e.final)


def cut(
    model: ir.Model,
    offers: Mapping[str, SupportedForm | UnsupportedForm],
    seen: CalibrationStatistics,
    target: Target,
    penalty: Mapping[str, float] = MappingProxyType({}),
    rounding_cost: Mapping[str, float] = MappingProxyType({}),
) -> frozenset[str]:
    """Names of the operators on the integer side of a minimum cut.

    Args:
        model: canonical float model.
        offers: what could run in integer, and what both forms cost.
        seen: for the sizes of tensors.
        target: for the costs of Q and DQ.
        penalty: what integer forms cost more, by operator name; 0 or more.
        rounding_cost: what it costs that there are codes of a tensor, by its name; 0 or more. That of a tensor inside a fused
            group does not count.
    """
    _, integer_side = minimum_cut(cut_graph(model, offers, seen, target, penalty, rounding_cost), "source", "sink")
    order = (str(n.name) for n in model.graph)
    return _with_copies(
        model, offers, {name for name in order if ("op", name) in integer_side and isinstance(offers.get(name), SupportedForm)}
    )


def cut_graph(
    model: ir.Model,
    offers: Mapping[str, SupportedForm | UnsupportedForm],
    seen: CalibrationStatistics,
    target: Target,
    penalty: Mapping[str, float] = MappingProxyType({}),
    rounding_cost: Mapping[str, float] = MappingProxyType({}),
) -> CutGraph:
    """The edges of that graph and their capacities, in the order of the model; arguments as for :func:`cut`.

    A minimum cut costs what the cheapest assignment does, copies and operators without an integer form left out.
    """
    network: CutGraph = {}
    for node in model.graph:
        name = str(node.name)
        entry = offers.get(name)
        if _is_copy(node, offers):
            continue
        if isinstance(entry, SupportedForm):
            network["source", ("op", name)] = entry.float_cost
            network[("op", name), "sink"] = entry.integer_cost + penalty.get(name, 0.0)
        elif isinstance(entry, UnsupportedForm):
            network[("op", name), "sink"] = math.inf
    values = [*model.graph.inputs, *(o for n in model.graph for o in n.outputs)]
    for value in values:
        if is_float(value) and constant(value) is None and not _is_copy(value.producer(), offers):
            _price_tensor(network, value, offers, seen, target)
            _price_rounding(network, value, offers, rounding_cost)
    for node in model.graph:
        entry = offers.get(str(node.name))
        x = node.inputs[0] if node.inputs else None
        producer = x.producer() if x is not None else None
        if producer is not None and isinstance(entry, SupportedForm) and (entry.form == "absorbed" or _moves_zero(node, entry)):
            network[("op", str(node.name)), ("op", str(producer.name))] = math.inf
    return network


def _moves_zero(node: ir.Node, entry: SupportedForm) -> bool:
    """True if it needs the codes of pixels, whose scale is known."""
    return entry.form == "relabel" and relabel_offset(node) is not None


def _with_copies(model: ir.Model, offers: Mapping[str, SupportedForm | UnsupportedForm], integer: set[str]) -> frozenset[str]:
    """The same operators, and the copies that follow from them."""
    integer = set(integer)
    for node in model.graph:
        if _is_copy(node, offers) and _copies_codes(node, offers, integer):
            integer.add(str(node.name))
    return frozenset(integer)


def _is_copy(node: ir.Node | None, offers: Mapping[str, SupportedForm | UnsupportedForm]) -> bool:
    entry = offers.get(str(node.name)) if node is not None else None
    return isinstance(entry, SupportedForm) and entry.form == "requantize"


def _readers(value: ir.Value, offers: Mapping[str, SupportedForm | UnsupportedForm]) -> list[ir.Node]:
    """The nodes that read a value or a copy of it, once for each use."""
    return [reader for node, _ in consumers(value) for reader in (_readers(node.outputs[0], offers) if _is_copy(node, offers) else [node])]


def _copies_codes(copy: ir.Node, offers: Mapping[str, SupportedForm | UnsupportedForm], integer: Collection[str]) -> bool:
    """True if what is copied has codes without this copy, and somebody reads the codes of the copy."""
    x = copy.inputs[0]
    producer = x.producer() if x is not None else None
    if x is None or producer is None or str(producer.name) not in integer:
        return False
    entry = offers[str(producer.name)]
    others = [node for node, _ in consumers(x) if node is not copy]
    written = not (isinstance(entry, SupportedForm) and entry.may_write_float) or any(str(n.name) in integer for n in others)
    return written and any(str(n.name) in integer for n in _readers(copy.outputs[0], offers))


def _price_tensor(
    network: CutGraph, value: ir.Value, offers: Mapping[str, SupportedForm | UnsupportedForm], seen: CalibrationStatistics, target: Target
) -> None:
    name = str(value.name)
    size = math.prod(seen.tensors[name].shape) if name in seen.tensors else 0
    quantize, dequantize = target.quantize(size), target.dequantize(size)
    readers = _readers(value, offers)
    users = [("op", str(node.name)) for node in readers if str(node.name) in offers]
    producer = value.producer()
    entry = offers.get(str(producer.name)) if producer is not None else None
    made = ("op", str(producer.name)) if producer is not None and entry is not None else "sink"
    if not users and made == "sink":
        return
    some: Vertex = ("some", name)
    every: Vertex = ("all", name)
    for user in dict.fromkeys(users):
        network[user, some] = math.inf
        network[every, user] = math.inf
    if is_graph_output(value) or len(users) < len(readers):
        network[every, "sink"] = math.inf
    if isinstance(entry, SupportedForm) and entry.may_write_float:
        # mixed readers pay the DQ on the way from `some` to `all`; what Q costs more than DQ is left for a float producer
        network[some, every] = dequantize
        network[every, made] = dequantize
        network[some, made] = quantize - dequantize
    else:
        network[some, made] = quantize
        if isinstance(entry, SupportedForm):
            network[made, every] = dequantize


def _price_rounding(
    network: CutGraph, value: ir.Value, offers: Mapping[str, SupportedForm | UnsupportedForm], rounding_cost: Mapping[str, float]
) -> None:
    """Let the codes of a tensor, and of its copies, cost what they add to the loss."""
    producer, follower = value.producer(), sole_consumer(value)
    entry = offers.get(str(producer.name)) if producer is not None else None
    behind = offers.get(str(follower.name)) if follower is not None else None
    if isinstance(behind, SupportedForm) and behind.form == "absorbed":
        return
    copies = [node for node, _ in consumers(value) if _is_copy(node, offers)]
    name = str(value.name)
    for copy in copies:
        _price_codes(
            network, str(copy.outputs[0].name), [("op", str(n.name)) for n in _readers(copy.outputs[0], offers)], "sink", rounding_cost
        )
    if isinstance(entry, SupportedForm) and entry.form in PASSING and producer is not None:
        # codes that it was given are as good as before: new errors only if they are made here
        _price_codes(network, name, [("some", name)], ("op", str(producer.name)), rounding_cost)
        return
    writers = [] if not isinstance(entry, SupportedForm) or entry.may_write_float or producer is None else [("op", str(producer.name))]
    _price_codes(network, name, [("op", str(n.name)) for n, _ in consumers(value) if n not in copies] + writers, "sink", rounding_cost)


def _price_codes(
    network: CutGraph,
    name: str,
    makers: Sequence[tuple[str, str]],
    unless: tuple[str, str] | str,
    rounding_cost: Mapping[str, float],
) -> None:
    """A cost if any of some vertices is on the source side, and another is not."""
    if rounding_cost.get(name, 0.0) <= 0.0:
        return
    network[("coded", name), unless] = rounding_cost[name]
    for maker in makers:
        network[maker, ("coded", name)] = math.inf


def write_assignment(
    model: ir.Model,
    offers: Mapping[str, SupportedForm | UnsupportedForm],
    choice: Choice,
    integer: frozenset[str],
    empty: Plan,
    fake_quantized: frozenset[str] = frozenset(),
) -> Plan:
    """Write the plan that follows from the set of integer operators, and that of fake-quantized ones.

    It says what each operator writes, and each tensor's tensor_plan.
    """
    coded = integer | fake_quantized
    ops: dict[str, OpPlan] = {}
    for node in model.graph:
        name = str(node.name)
        entry = offers.get(name)
        if isinstance(entry, UnsupportedForm):
            ops[name] = (
                OpPlan(node.op_type, "fake-quantized", "codes", reason=entry.reason)
                if name in fake_quantized
                else OpPlan(node.op_type, "float", reason=entry.reason)
            )
        elif isinstance(entry, SupportedForm) and name not in integer:
            ops[name] = OpPlan(node.op_type, "float", reason=_COPY if entry.form == "requantize" else _CHEAPER)
        elif isinstance(entry, SupportedForm):
            grids = {index: choice.constants[name, index] for index in entry.constants}
            writes = _writes(node, entry, offers, coded)
            form, _ = entry.writing(writes)
            ops[name] = OpPlan(node.op_type, "integer", writes, grids, coefficients=_coefficients(entry), form=form)
    tensors: dict[str, TensorPlan] = {}
    for value in [*model.graph.inputs, *(o for n in model.graph for o in n.outputs)]:
        if is_float(value) and constant(value) is None and str(value.name) in choice.tensors:
            tensors[str(value.name)] = _tensor_plan(value, offers, choice, ops, tensors)
    return empty.with_ops(tensors, ops)


def _coefficients(entry: SupportedForm) -> tuple[float, ...]:
    return () if entry.coefficients is None else tuple(float(number) for number in astuple(entry.coefficients))


def _writes(
    node: ir.Node, entry: SupportedForm, offers: Mapping[str, SupportedForm | UnsupportedForm], integer: frozenset[str]
) -> Literal["codes", "float", "fused"]:
    output = node.outputs[0]
    follower = sole_consumer(output)
    if follower is not None:
        behind = offers.get(str(follower.name))
        if isinstance(behind, SupportedForm) and behind.form == "absorbed" and str(follower.name) in integer:
            return "fused"
    readers = consumers(output)
    if entry.may_write_float and not any(str(user.name) in integer for user, _ in readers):
        return "float"
    return "codes"


def _tensor_plan(
    value: ir.Value,
    offers: Mapping[str, SupportedForm | UnsupportedForm],
    choice: Choice,
    ops: Mapping[str, OpPlan],
    tensors: Mapping[str, TensorPlan],
) -> TensorPlan:
    name = str(value.name)
    producer = value.producer()
    made = ops.get(str(producer.name)) if producer is not None else None
    read = any(ops[str(node.name)].reads_codes for node, _ in consumers(value) if str(node.name) in ops)
    if made is not None and made.writes == "fused":
        return TensorPlan("float", reason="inside a fused group")
    writes_codes = made is not None and made.writes == "codes"
    if not read and not writes_codes:
        return TensorPlan("float", reason="neither written nor read by an integer operator")
    if writes_codes and producer is not None:
        entry = offers[str(producer.name)]
        form = entry.form if isinstance(entry, SupportedForm) else ""
        if form in PASSING:
            source = str(passed_input(producer).name)
            grid = tensors[source].params
            assert grid is not None
            renamed = relabelled(producer, grid) if form == "relabel" else None
            return TensorPlan("shared", grid, source) if renamed is None else TensorPlan("derived", renamed, source)
        if form == "pixels":
            return TensorPlan("fixed", pixel_params(choice.tensors[name].signed))
        if producer.op_type == "Sigmoid" and made is not None:
            grid = tensors[str(producer.inputs[0].name)].params if form == "piecewise_linear" and producer.inputs[0] is not None else None
            return TensorPlan(
                "fixed", _unit_interval(choice.tensors[name]) if grid is None else approximation_params(grid, approximation_of(made))
            )
    return TensorPlan("measured", choice.tensors[name])


def _unit_interval(like: QuantParams) -> QuantParams:
    """The grid of the runtime's own Sigmoid: 0 to 1 - 2^-bits in steps of 2^-bits."""
    return QuantParams((2.0**-like.bits,), (like.qmin,), like.bits, like.signed)
