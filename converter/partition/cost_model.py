"""What a planned model will cost on its target, by the target's own prices: operators in their forms, and Q and DQ where forms meet."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from converter.forms.form import SupportedForm, UnsupportedForm
from converter.forms.registry import FORMS
from converter.graph.queries import constant, consumers, is_float, is_graph_output
from converter.plan.records import Plan
from converter.targets import Target
from converter.targets.costs import Shapes, kind_of, operator_costs

__all__ = ["CALL", "CostEstimate", "PredictedCost", "in_second_unit", "predict"]

CALL = "call of the runtime"


@dataclass(frozen=True)
class PredictedCost:
    """In the target's unit.

    Attributes:
        total: of one inference.
        kinds: (operators, their cost) by kind and form, as ``Conv integer``, the dearest first; Q, DQ and the call among them.
    """

    total: float
    kinds: dict[str, tuple[int, float]]


@dataclass(frozen=True)
class CostEstimate:
    """One inference in a unit beside the target's first, by which nothing is decided.

    Attributes:
        unit: such as ``cycles``.
        predicted: of the planned model.
        predicted_float: of the float model.
    """

    unit: str
    predicted: float
    predicted_float: float


def in_second_unit(floats: ir.Model, model: ir.Model, plan: Plan, shapes: Shapes, target: Target) -> CostEstimate | None:
    """What the float model and the planned one cost in the target's second unit; None if it has none.

    Args:
        floats: canonical float model.
        model: the same with the plan's equalizations applied.
        shapes: of all float tensors.
    """
    second = target.second
    if second is None:
        return None
    planned, in_float = predict(model, plan, None, shapes, second), predict(floats, None, None, shapes, second)
    return CostEstimate(second.unit, planned.total, in_float.total)


def predict(
    model: ir.Model, plan: Plan | None, offers: Mapping[str, SupportedForm | UnsupportedForm] | None, shapes: Shapes, target: Target
) -> PredictedCost:
    """Add up what a model costs as planned.

    Args:
        model: canonical float model, with the plan's equalizations applied.
        plan: None for the float model itself.
        offers: what could run in integer; the costs of integer forms are theirs. None: they are those that the target gives the forms.
        shapes: of all float tensors.
        target: for all other prices.
    """
    sums: dict[str, list[float]] = defaultdict(list)
    sums[CALL].append(target.call)
    for node in model.graph:
        name = str(node.name)
        if not any(is_float(o) for o in node.outputs) or constant(node.outputs[0]) is not None:
            continue
        entry = None if offers is None else offers.get(name)
        op = None if plan is None else plan.ops.get(name)
        if op is not None and op.runs == "integer":
            offered = {entry.form: entry.integer_cost, entry.code_form: entry.code_cost} if isinstance(entry, SupportedForm) else {}
            # a plan that is read may have a form that its method found, which is not among what is offered
            cost = offered[op.form] if op.form in offered else FORMS[op.form].cost(node, shapes, target)
            sums[f"{kind_of(node)} integer"].append(cost)
        else:
            sums[f"{kind_of(node)} float"].append(operator_costs(node, shapes, target)[0])
    if plan is not None:
        _add_conversions(sums, model, plan, shapes, target)
    kinds = {kind: (len(each), sum(each)) for kind, each in sums.items()}
    ordered = dict(sorted(kinds.items(), key=lambda item: (-item[1][1], item[0])))
    return PredictedCost(sum(cost for _, cost in ordered.values()), ordered)


def _add_conversions(sums: dict[str, list[float]], model: ir.Model, plan: Plan, shapes: Shapes, target: Target) -> None:
    """A Q where codes are read that nobody writes, a DQ where codes are written and numbers read."""
    for value in [*model.graph.inputs, *(o for n in model.graph for o in n.outputs)]:
        name = str(value.name)
        tensor_plan = plan.tensors.get(name)
        if tensor_plan is None or tensor_plan.params is None or not is_float(value):
            continue
        size = math.prod(shapes.get(name, ()))
        producer = value.producer()
        made = plan.ops.get(str(producer.name)) if producer is not None else None
        readers = [plan.ops.get(str(node.name)) for node, _ in consumers(value)]
        written = made is not None and made.writes == "codes"
        if made is None or made.runs != "integer" or not written:
            sums["QuantizeLinear"].append(target.quantize(size))
        if written and (is_graph_output(value) or any(reader is None or reader.runs != "integer" for reader in readers)):
            sums["DequantizeLinear"].append(target.dequantize(size))
