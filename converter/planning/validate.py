"""Does a plan that was read from a file fit this model and this target?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from converter.errors import UsageError
from converter.graph.queries import constant, data_inputs, is_float, sole_consumer
from converter.options import parse_bits
from converter.partition.bit_widths import tensor_bits
from converter.partition.integer_forms import PASSING, Offer, Refusal, relabel_factor
from converter.plan.choice import Constant
from converter.plan.constants import codes_from_text
from converter.plan.records import EXCLUDED, OpPlan, Plan, ramp_of
from converter.quantization.parameters import Grid
from converter.targets import Target
from converter.transforms.equalization.apply import channel_grid, inserted_factors
from converter.transforms.sigmoids.piecewise_linear import ramp_grid
from converter.transforms.transform import GraphFacts

__all__ = ["adopt_plan", "apply_transforms", "check_plan"]

_GIVEN = "float in the plan that was given"
_HINT = "write a plan with --plan-out for this model and edit that"
Refuse = Callable[[str], UsageError]
Offers = Mapping[str, Offer | Refusal]


def adopt_plan(plan: Plan, excluded: Collection[str]) -> Plan:
    """The plan with excluded operators in float, and without what an edit to ``float`` left of an operator's integer form."""
    ops = {}
    for name, op in plan.ops.items():
        if name in excluded:
            op = replace(op, runs="float", reason=EXCLUDED)
        ops[name] = op if op.reads_codes else OpPlan(op.op_type, "float", reason=op.reason or _GIVEN)
    return plan.with_ops(plan.tensors, ops)


def apply_transforms(plan: Plan, model: ir.Model, facts: GraphFacts, where: Path) -> ir.Model:
    """Apply the transforms of a plan in order; the model itself if there are none.

    Raises:
        UsageError: one does not fit the model.
    """
    try:
        for transform in plan.transforms:
            model = transform.apply(model, facts)
    except ValueError as error:
        raise UsageError(f"the plan does not fit the model: {error}", where=f"--plan-in {where}", hint=_HINT) from None
    return model


def check_plan(plan: Plan, model: ir.Model, offers: Offers, target: Target, where: Path) -> None:
    """Refuse a plan that the emitter could not follow, or that the runtime would not run as written.

    Raises:
        UsageError: names the first operator or tensor that does not fit.
    """

    def refuse(what: str) -> UsageError:
        return UsageError(what, where=f"--plan-in {where}", hint=_HINT)

    if plan.target != target.name:
        hint = f"give --target {plan.target}, or {_HINT}"
        raise UsageError(f"the plan is for target '{plan.target}', not '{target.name}'", where=f"--plan-in {where}", hint=hint)
    nodes = {str(n.name): n for n in model.graph}
    missing = [n for n in offers if n not in plan.ops]
    unknown = [n for n in plan.ops if n not in nodes]
    if missing or unknown:
        raise refuse(f"the plan does not fit the model: operator '{(unknown or missing)[0]}' is {'unknown' if unknown else 'missing'}")
    tensors = {str(v.name) for v in [*model.graph.inputs, *(o for n in model.graph for o in n.outputs)]}
    for name in plan.tensors:
        if name not in tensors:
            raise refuse(f"the plan does not fit the model: tensor '{name}' is unknown")
    widest = tensor_bits(model, offers, parse_bits(plan.bits)[1])
    for name, tensor in plan.tensors.items():
        if tensor.grid is not None and tensor.grid.bits > widest.get(name, 8):
            limit = f"can have {widest[name]} bits at most in {plan.bits}"
            raise refuse(f"tensor '{name}' enters a layer and {limit}, the plan says {tensor.grid.bits}")
    for name, op in plan.ops.items():
        node, entry = nodes[name], offers.get(name)
        if op.op_type != node.op_type:
            raise refuse(f"operator '{name}' is {node.op_type}, the plan says {op.op_type}")
        if op.runs == "float":
            continue
        if op.runs == "enclosed":
            _check_enclosed(node, op, entry, plan, target, refuse)
            continue
        if not isinstance(entry, Offer):
            reason = entry.reason if isinstance(entry, Refusal) else "it works on no float tensor"
            raise refuse(f"operator '{name}' cannot run in integer: {reason}")
        _check_integer(node, op, entry, offers, plan, target, refuse)


def _check_integer(node: ir.Node, op: OpPlan, entry: Offer, offers: Offers, plan: Plan, target: Target, refuse: Refuse) -> None:
    name = str(node.name)
    if set(op.constants) != set(entry.constants):
        raise refuse(f"operator '{name}' needs grids for its constant inputs {sorted(entry.constants)}")
    for index, grid in op.constants.items():
        _check_constant(f"constant input {index} of operator '{name}'", grid, entry.constants[index], refuse)
    _check_stored(node, op, entry, refuse)
    _check_gate(node, op, entry, plan, refuse)
    for _, value in data_inputs(node):
        if entry.form != "absorbed":  # a clamp reads what the group holds inside
            _check_tensor(str(value.name), plan, target, refuse, f"read by the integer operator '{name}'")
            _check_inserted(value, plan, refuse)
    if op.writes == "codes":
        for output in node.outputs:
            if is_float(output) and constant(output) is None and (output.uses() or output.is_graph_output()):
                _check_tensor(str(output.name), plan, target, refuse, f"written by the integer operator '{name}'")
                _check_follows(output, node, entry, plan, refuse)
    elif op.writes == "inside":
        _check_inside(node, offers, plan, refuse)
    elif not entry.may_write_float:
        raise refuse(f"operator '{name}' cannot write float numbers from its integer kernel")


def _check_enclosed(node: ir.Node, op: OpPlan, entry: Offer | Refusal | None, plan: Plan, target: Target, refuse: Refuse) -> None:
    name = str(node.name)
    if op.writes != "codes" or op.constants or not isinstance(entry, Refusal) or entry.final:
        reason = f": {entry.reason}" if isinstance(entry, Refusal) and entry.final else ", or not in that way"
        raise refuse(f"operator '{name}' cannot be enclosed{reason}")
    for _, value in data_inputs(node):
        _check_tensor(str(value.name), plan, target, refuse, f"read as codes by operator '{name}'")
    for output in node.outputs:
        if is_float(output) and constant(output) is None and (output.uses() or output.is_graph_output()):
            _check_tensor(str(output.name), plan, target, refuse, f"written as codes by operator '{name}'")


def _check_inserted(value: ir.Value, plan: Plan, refuse: Refuse) -> None:
    node, grid = value.producer(), plan.tensors[str(value.name)].grid
    if node is None or grid is None or inserted_factors(node) is None:
        return
    try:
        channel_grid(node, grid)
    except ValueError as error:
        raise refuse(f"tensor '{value.name}' cannot have one scale per channel: {error}") from None


def _check_stored(node: ir.Node, op: OpPlan, entry: Offer, refuse: Refuse) -> None:
    """Codes and biases that the plan prescribes."""
    if op.codes:
        if 1 not in entry.constants or entry.form != "weighted":
            raise refuse(f"operator '{node.name}' has no weights to give codes for")
        grid = op.constants[1]
        try:
            codes = codes_from_text(op.codes, entry.constants[1].array.shape)
        except ValueError as error:
            raise refuse(f"the codes of operator '{node.name}' do not fit: {error}") from None
        if codes.size and not grid.qmin <= int(codes.min()) <= int(codes.max()) <= grid.qmax:
            raise refuse(f"a code of operator '{node.name}' lies outside {grid.qmin}..{grid.qmax}")
    if op.bias:
        bias = constant(node.inputs[2]) if entry.form == "weighted" and len(node.inputs) > 2 else None
        if bias is None or bias.size != len(op.bias):
            raise refuse(f"operator '{node.name}' has {0 if bias is None else bias.size} biases, the plan gives {len(op.bias)}")


def _check_gate(node: ir.Node, op: OpPlan, entry: Offer, plan: Plan, refuse: Refuse) -> None:
    """Numbers of any size could leave the range of sound scales."""
    name = str(node.name)
    if op.op_type == "Sigmoid" and op.gate:
        _check_ramp(node, op, plan, refuse)
        return
    if entry.form != "gelu":
        if op.gate:
            raise refuse(f"operator '{name}' has no gate")
        return
    if len(op.gate) != 3 or not (0.25 <= op.gate[0] <= 4.0 and 0.25 <= op.gate[1] <= 4.0 and op.gate[2] in range(128)):
        raise refuse(f"the gate of operator '{name}' is a slope and a height of 0.25 to 4 and a base of 0 to 127")


def _check_ramp(node: ir.Node, op: OpPlan, plan: Plan, refuse: Refuse) -> None:
    ends = [plan.tensors.get(str(v.name)) for v in (node.inputs[0], node.outputs[0]) if v is not None]
    grids = [fate.grid for fate in ends if fate is not None and fate.grid is not None]
    slope, offset, low, high = op.gate if len(op.gate) == 4 else (0.0, 0.0, 0.0, 0.0)
    if op.writes != "codes" or not (0.05 <= slope <= 1.0 and 0.0 <= offset <= 1.0 and 0.0 <= low < high <= 1.0):
        raise refuse(f"the ramp of operator '{node.name}' is a slope of 0.05 to 1, an offset, and a low and a high end within 0 to 1")
    if len(grids) == 2 and grids[1] != ramp_grid(grids[0], ramp_of(op)):
        raise refuse(f"tensor '{node.outputs[0].name}' must have the grid that the ramp of operator '{node.name}' makes of its input's")


def _check_constant(what: str, grid: Grid, constant_: Constant, refuse: Refuse) -> None:
    channels = 1 if constant_.axis is None else constant_.array.shape[constant_.axis]
    if grid.axis != constant_.axis or len(grid.scale) != channels:
        raise refuse(f"{what} needs a grid with {channels} scales along axis {constant_.axis}")
    if grid.bits > constant_.bits:
        raise refuse(f"{what} can have {constant_.bits} bits at most on this target, the plan says {grid.bits}")
    symmetric = constant_.signed is None
    if grid.signed != (True if symmetric else constant_.signed) or (symmetric and (any(grid.zero_point) or not grid.narrow)):
        kind = "signed, narrow, with zero points 0" if symmetric else "signed" if constant_.signed else "unsigned"
        raise refuse(f"the grid of {what} must be {kind}")


def _check_tensor(name: str, plan: Plan, target: Target, refuse: Refuse, role: str) -> None:
    fate = plan.tensors.get(name)
    if fate is None or fate.grid is None:
        raise refuse(f"tensor '{name}' has no grid but is {role}")
    if fate.grid.signed != target.signed_activations or fate.grid.axis is not None or fate.grid.narrow:
        kind = "signed" if target.signed_activations else "unsigned"
        raise refuse(f"tensor '{name}' needs a per-tensor grid with {kind} codes on target '{target.name}'")


def _check_follows(output: ir.Value, node: ir.Node, entry: Offer, plan: Plan, refuse: Refuse) -> None:
    """Movements keep their input's grid and multiplications by a constant rescale it; nothing else shares or derives one."""
    fate = plan.tensors[str(output.name)]
    factor = relabel_factor(node) if entry.form == "relabel" else None
    if entry.form not in PASSING:
        if fate.fate == "derived":
            raise refuse(f"tensor '{output.name}' cannot be derived: operator '{node.name}' does not multiply by a positive constant")
        if fate.fate == "shared":
            raise refuse(f"tensor '{output.name}' cannot be shared: operator '{node.name}' does more than move data")
        return
    source = next(str(v.name) for _, v in data_inputs(node))
    before = plan.tensors[source].grid
    wanted = before.rescaled(factor) if before is not None and factor is not None else before
    if fate.grid != wanted or (fate.fate == "derived") != (entry.form == "relabel"):
        rule = f"must share the grid of '{source}'" if entry.form == "movement" else f"must have the grid of '{source}' times {factor:g}"
        raise refuse(f"tensor '{output.name}' {rule}")


def _check_inside(node: ir.Node, offers: Offers, plan: Plan, refuse: Refuse) -> None:
    follower = sole_consumer(node.outputs[0])
    name = str(follower.name) if follower is not None else ""
    behind = offers.get(name)
    if not isinstance(behind, Offer) or behind.form != "absorbed" or plan.ops[name].runs != "integer":
        raise refuse(f"operator '{node.name}' writes inside a group, but no integer Relu or Clip ends the group: change both")
