"""The plan that follows from what runs in integer: what each operator writes, and where each tensor's parameters come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from typing import Literal

import onnx_ir as ir

from converter.forms.exponential import difference_params, exponential_params
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.forms.movement import passed_input
from converter.forms.registry import PASSING
from converter.forms.requantize import pixel_params
from converter.forms.rescale import relabelled
from converter.graph.queries import constant, consumers, is_float, sole_consumer
from converter.plan.choice import Choice
from converter.plan.records import OpPlan, Plan, TensorPlan, approximation_of
from converter.quantization.parameters import QuantParams
from converter.transforms.sigmoids.piecewise_linear import approximation_params

__all__ = ["CHEAPER", "write_assignment"]

Offers = Mapping[str, SupportedForm | UnsupportedForm]

CHEAPER = "cheaper in float on this target, given its neighbours"
_COPY = "a copy for layers, which needs no node: it is quantized from float numbers"


def write_assignment(
    model: ir.Model,
    offers: Offers,
    choice: Choice,
    integer: frozenset[str],
    empty: Plan,
    fake_quantized: frozenset[str] = frozenset(),
) -> Plan:
    """Write the plan that follows from the set of integer operators, and that of fake-quantized ones.

    It says what each operator writes, and each tensor's tensor_plan.
    """
    coded = integer | fake_quantized
    ops = {str(n.name): _op_plan(n, offers, choice, integer, coded) for n in model.graph if str(n.name) in offers}
    tensors: dict[str, TensorPlan] = {}
    for value in [*model.graph.inputs, *(o for n in model.graph for o in n.outputs)]:
        if is_float(value) and constant(value) is None and str(value.name) in choice.tensors:
            tensors[str(value.name)] = _tensor_plan(value, offers, choice, ops, tensors)
    return empty.with_ops(tensors, ops)


def _op_plan(node: ir.Node, offers: Offers, choice: Choice, integer: frozenset[str], coded: frozenset[str]) -> OpPlan:
    """Of an operator that something is offered for; `coded` are all that read and write codes."""
    name = str(node.name)
    entry = offers[name]
    if isinstance(entry, UnsupportedForm):
        if name in coded:
            return OpPlan(node.op_type, "fake-quantized", "codes", reason=entry.reason)
        return OpPlan(node.op_type, "float", reason=entry.reason)
    if name not in integer:
        return OpPlan(node.op_type, "float", reason=_COPY if entry.form == "requantize" else CHEAPER)
    grids = {index: choice.constants[name, index] for index in entry.constants}
    writes = _writes(node, entry, offers, coded)
    form, _ = entry.writing(writes)
    return OpPlan(node.op_type, "integer", writes, grids, coefficients=_coefficients(entry), form=form)


def _coefficients(entry: SupportedForm) -> tuple[float, ...]:
    return () if entry.coefficients is None else tuple(float(number) for number in astuple(entry.coefficients))


def _writes(node: ir.Node, entry: SupportedForm, offers: Offers, integer: frozenset[str]) -> Literal["codes", "float", "fused"]:
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
    offers: Offers,
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
    if writes_codes and made is not None and producer is not None:
        return _prescribed(producer, made, name, offers, choice, tensors) or TensorPlan("measured", choice.tensors[name])
    return TensorPlan("measured", choice.tensors[name])


def _prescribed(
    producer: ir.Node, made: OpPlan, name: str, offers: Offers, choice: Choice, tensors: Mapping[str, TensorPlan]
) -> TensorPlan | None:
    """Where the operator that writes the codes of a tensor leaves no choice of their parameters; None where it does."""
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
    if form == "difference":
        source = str(producer.inputs[0].name) if producer.inputs[0] is not None else ""
        scores = tensors[source].params
        assert scores is not None
        return TensorPlan("derived", difference_params(scores), source)
    if form == "exponential":
        return TensorPlan("fixed", exponential_params(choice.tensors[name]))
    if producer.op_type == "Sigmoid":
        grid = tensors[str(producer.inputs[0].name)].params if form == "piecewise_linear" and producer.inputs[0] is not None else None
        return TensorPlan(
            "fixed", _unit_interval(choice.tensors[name]) if grid is None else approximation_params(grid, approximation_of(made))
        )
    return None


def _unit_interval(like: QuantParams) -> QuantParams:
    """The grid of the runtime's own Sigmoid: 0 to 1 - 2^-bits in steps of 2^-bits."""
    return QuantParams((2.0**-like.bits,), (like.qmin,), like.bits, like.signed)
