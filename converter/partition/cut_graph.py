"""The minimum cut that decides which offered operators run in integer.

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
from types import MappingProxyType

import onnx_ir as ir

from converter.calibration.observer import CalibrationStatistics
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.forms.registry import FORMS, PASSING
from converter.graph.queries import constant, consumers, is_float, is_graph_output, relabel_offset, sole_consumer
from converter.partition.max_flow import minimum_cut
from converter.targets import Target

__all__ = ["CutGraph", "cut", "cut_graph", "everything"]

Vertex = str | tuple[str, str]
"""``source``, ``sink``, or what it says of which operator or tensor."""

CutGraph = dict[tuple[Vertex, Vertex], float]
"""Capacities of directed edges; infinite for those that must not be cut."""


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


def everything(model: ir.Model, offers: Mapping[str, SupportedForm | UnsupportedForm]) -> frozenset[str]:
    """Names of all operators that can run in integer."""
    return _with_copies(model, offers, {n for n, e in offers.items() if isinstance(e, SupportedForm) and e.form != "requantize"})


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
        if isinstance(entry, SupportedForm):
            for index in (0,) if _moves_zero(node, entry) else FORMS[entry.form].needs:
                x = node.inputs[index]
                producer = None if x is None else x.producer()
                if producer is not None:
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
    if isinstance(entry, SupportedForm) and entry.form == "difference":  # of numbers on a grid, on which it lies, too
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
