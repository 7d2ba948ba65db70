"""Does a plan that was read from a file fit this model and this target?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from converter.errors import UsageError
from converter.forms.exponential import difference_params, exponential_params
from converter.forms.form import CONTAINER_BITS, SupportedForm, UnsupportedForm
from converter.forms.movement import passed_input
from converter.forms.registry import FORMS, PASSING, WITH_WEIGHTS
from converter.forms.rescale import relabelled
from converter.graph.marks import BORDER
from converter.graph.operator_sets import MOVEMENT
from converter.graph.queries import constant, data_inputs, is_float, relabel_factor, relabel_offset, sole_consumer
from converter.partition.bit_widths import tensor_bits
from converter.plan.choice import Constant
from converter.plan.records import EXCLUDED, OpPlan, Plan
from converter.planning.stored_weights import storable_weights
from converter.quantization.parameters import QuantParams
from converter.targets import Target
from converter.transforms.equalization.apply import channel_grid, inserted_factors
from converter.transforms.transform import GraphFacts

__all__ = ["Check", "adopt_plan", "apply_transforms", "check_plan", "with_forms"]

_GIVEN = "float in the plan that was given"
_HINT = "write a plan with --plan-out for this model and edit that"
Offers = Mapping[str, SupportedForm | UnsupportedForm]


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


def with_forms(plan: Plan, model: ir.Model) -> Plan:
    """The plan with the form of each integer operator; files of older versions, and hands that edit, leave it out."""
    nodes = {str(n.name): n for n in model.graph}
    unsaid = [name for name, op in plan.ops.items() if op.runs == "integer" and not op.form and name in nodes]
    ops = plan.ops | {name: replace(plan.ops[name], form=_form(nodes[name], plan.ops[name])) for name in unsaid}
    return plan.with_ops(plan.tensors, ops)


def _form(node: ir.Node, op: OpPlan) -> str:
    if node.op_type in ("Conv", "Gemm", "MatMul"):
        weight = constant(node.inputs[1])
        matrix = weight is not None and (weight.ndim == 2 or node.op_type != "MatMul")
        return "weighted" if 1 in op.constants and matrix else "product"
    if node.op_type == "Sigmoid":
        return "piecewise_linear" if op.coefficients else "pointwise"
    if relabel_factor(node) is not None or relabel_offset(node) is not None:
        return "relabel"
    if BORDER in node.metadata_props:
        return "join"
    alone = {
        "HardSwish": "hardswish",
        "Gelu": "gelu",
        "Relu": "absorbed",
        "Clip": "absorbed",
        "Identity": "requantize",
        "Concat": "concat",
        "Pad": "pad",
        "DequantizeLinear": "pixels",
        "ReduceMax": "row_maximum",
        "Sub": "difference",
        "Exp": "exponential",
    }
    return alone.get(node.op_type, "movement" if node.op_type in MOVEMENT else "pointwise")


@dataclass(frozen=True)
class Check:
    """What the checks of a plan share.

    Attributes:
        plan: that is checked.
        target: that it is for.
        offers: what could run in integer.
        where: the plan's file.
    """

    plan: Plan
    target: Target
    offers: Offers
    where: Path

    def refuse(self, what: str) -> UsageError:
        """The error that names what is wrong."""
        return UsageError(what, where=f"--plan-in {self.where}", hint=_HINT)

    def tensor(self, name: str, role: str) -> None:
        """A tensor has per-tensor quantization parameters of the target's type.

        Raises:
            UsageError: it has not.
        """
        tensor_plan = self.plan.tensors.get(name)
        if tensor_plan is None or tensor_plan.params is None:
            raise self.refuse(f"tensor '{name}' has no grid but is {role}")
        if tensor_plan.params.signed != self.target.signed_activations or tensor_plan.params.axis is not None or tensor_plan.params.narrow:
            kind = "signed" if self.target.signed_activations else "unsigned"
            raise self.refuse(f"tensor '{name}' needs a per-tensor grid with {kind} codes on target '{self.target.name}'")


def check_plan(plan: Plan, model: ir.Model, offers: Offers, target: Target, where: Path) -> None:
    """Refuse a plan that the emitter could not follow, or that the runtime would not run as written.

    Raises:
        UsageError: names the first operator or tensor that does not fit.
    """
    check = Check(plan, target, offers, where)
    if plan.target != target.name:
        hint = f"give --target {plan.target}, or {_HINT}"
        raise UsageError(f"the plan is for target '{plan.target}', not '{target.name}'", where=f"--plan-in {where}", hint=hint)
    nodes = {str(n.name): n for n in model.graph}
    missing = [n for n in offers if n not in plan.ops]
    unknown = [n for n in plan.ops if n not in nodes]
    if missing or unknown:
        said = "unknown" if unknown else "missing"
        raise check.refuse(f"the plan does not fit the model: operator '{(unknown or missing)[0]}' is {said}")
    _check_stored(model, check)
    tensors = {str(v.name) for v in [*model.graph.inputs, *(o for n in model.graph for o in n.outputs)]}
    for name in plan.tensors:
        if name not in tensors:
            raise check.refuse(f"the plan does not fit the model: tensor '{name}' is unknown")
    widest = tensor_bits(model, offers, plan.bits.activations)
    for name, tensor in plan.tensors.items():
        if tensor.params is not None and tensor.params.bits > widest.get(name, 8):
            limit = f"can have {widest[name]} bits at most in {plan.bits}"
            raise check.refuse(f"tensor '{name}' enters a layer and {limit}, the plan says {tensor.params.bits}")
    for name, op in plan.ops.items():
        node, entry = nodes[name], offers.get(name)
        if op.op_type != node.op_type:
            raise check.refuse(f"operator '{name}' is {node.op_type}, the plan says {op.op_type}")
        if op.runs == "float":
            continue
        if op.runs == "fake-quantized":
            _check_fake_quantized(node, op, entry, check)
            continue
        if not isinstance(entry, SupportedForm):
            reason = entry.reason if isinstance(entry, UnsupportedForm) else "it works on no float tensor"
            raise check.refuse(f"operator '{name}' cannot run in integer: {reason}")
        _check_integer(node, op, entry, check)


def _check_stored(model: ir.Model, check: Check) -> None:
    axes = storable_weights(model, check.plan)
    for name, grid in check.plan.stored.items():
        if name not in axes:
            raise check.refuse(f"constant '{name}' cannot be stored as codes: it is no weight of layers in float alone")
        array, axis = constant(model.graph.initializers[name]), axes[name]
        assert array is not None
        _check_constant(f"constant '{name}'", grid, Constant(array, axis, CONTAINER_BITS), check)


def _check_integer(node: ir.Node, op: OpPlan, entry: SupportedForm, check: Check) -> None:
    name = str(node.name)
    if set(op.constants) != set(entry.constants):
        raise check.refuse(f"operator '{name}' needs grids for its constant inputs {sorted(entry.constants)}")
    for index, grid in op.constants.items():
        _check_constant(f"constant input {index} of operator '{name}'", grid, entry.constants[index], check)
    if op.form not in (entry.form, entry.code_form, "piecewise_linear" if node.op_type == "Sigmoid" else ""):
        raise check.refuse(f"operator '{name}' has the form {entry.form}, the plan says {op.form}")
    if op.form == entry.code_form and op.writes == "float":
        raise check.refuse(f"operator '{name}' has the form {op.form}, which writes codes, the plan says {op.writes}")
    if op.form not in WITH_WEIGHTS and op.codes:
        raise check.refuse(f"operator '{name}' has no weights to give codes for")
    if op.form not in WITH_WEIGHTS and op.bias:
        raise check.refuse(f"operator '{name}' has 0 biases, the plan gives {len(op.bias)}")
    form = FORMS[op.form]
    form.check(check, node, op)
    for _, value in data_inputs(node):
        if form.reads_codes:
            check.tensor(str(value.name), f"read by the integer operator '{name}'")
            _check_inserted(value, check)
    if op.writes == "codes":
        for output in node.outputs:
            if is_float(output) and constant(output) is None and (output.uses() or output.is_graph_output()):
                check.tensor(str(output.name), f"written by the integer operator '{name}'")
                _check_follows(output, node, op, check)
    elif op.writes == "fused":
        _check_inside(node, check)
    elif not entry.may_write_float:
        raise check.refuse(f"operator '{name}' cannot write float numbers from its integer kernel")


def _check_fake_quantized(node: ir.Node, op: OpPlan, entry: SupportedForm | UnsupportedForm | None, check: Check) -> None:
    name = str(node.name)
    if op.writes != "codes" or op.constants or not isinstance(entry, UnsupportedForm) or entry.final:
        reason = f": {entry.reason}" if isinstance(entry, UnsupportedForm) and entry.final else ", or not in that way"
        raise check.refuse(f"operator '{name}' cannot be fake-quantized{reason}")
    for _, value in data_inputs(node):
        check.tensor(str(value.name), f"read as codes by operator '{name}'")
    for output in node.outputs:
        if is_float(output) and constant(output) is None and (output.uses() or output.is_graph_output()):
            check.tensor(str(output.name), f"written as codes by operator '{name}'")


def _check_inserted(value: ir.Value, check: Check) -> None:
    node, grid = value.producer(), check.plan.tensors[str(value.name)].params
    if node is None or grid is None or inserted_factors(node) is None:
        return
    try:
        channel_grid(node, grid)
    except ValueError as error:
        raise check.refuse(f"tensor '{value.name}' cannot have one scale per channel: {error}") from None


def _check_constant(what: str, grid: QuantParams, constant_: Constant, check: Check) -> None:
    channels = 1 if constant_.axis is None else constant_.array.shape[constant_.axis]
    if grid.axis != constant_.axis or len(grid.scale) != channels:
        raise check.refuse(f"{what} needs a grid with {channels} scales along axis {constant_.axis}")
    if grid.bits > constant_.bits:
        raise check.refuse(f"{what} can have {constant_.bits} bits at most on this target, the plan says {grid.bits}")
    symmetric = constant_.signed is None
    if grid.signed != (True if symmetric else constant_.signed) or (symmetric and (any(grid.zero_point) or not grid.narrow)):
        kind = "signed, narrow, with zero points 0" if symmetric else "signed" if constant_.signed else "unsigned"
        raise check.refuse(f"the grid of {what} must be {kind}")


def _check_follows(output: ir.Value, node: ir.Node, op: OpPlan, check: Check) -> None:
    """Movements keep their input's grid, multiplications by a constant rescale it and whole numbers added to pixels shift it; nothing else
    shares or derives one.
    """
    plan = check.plan
    tensor_plan = plan.tensors[str(output.name)]
    if op.form in ("difference", "exponential"):
        _check_prescribed(output, node, op, check)
        return
    if op.form not in PASSING:
        if tensor_plan.kind == "derived":
            raise check.refuse(f"tensor '{output.name}' cannot be derived: operator '{node.name}' does not multiply by a positive constant")
        if tensor_plan.kind == "shared":
            raise check.refuse(f"tensor '{output.name}' cannot be shared: operator '{node.name}' does more than move data")
        return
    source = str(passed_input(node).name)
    before = plan.tensors[source].params
    try:
        wanted = relabelled(node, before) if before is not None and op.form == "relabel" else before
    except ValueError:
        raise check.refuse(f"tensor '{output.name}' is pixels minus a whole number, and '{source}' is no longer pixels") from None
    if tensor_plan.params != wanted or (tensor_plan.kind == "derived") != (op.form == "relabel"):
        factor, offset = relabel_factor(node), relabel_offset(node)
        changed = f" times {factor:g}" if factor is not None else f" plus {offset}"
        rule = f"must have the grid of '{source}'{changed}" if op.form == "relabel" else f"must share the grid of '{source}'"
        raise check.refuse(f"tensor '{output.name}' {rule}")


def _check_prescribed(output: ir.Value, node: ir.Node, op: OpPlan, check: Check) -> None:
    """Differences lie on the grid of what they are of, exponentials between 0 and 1."""
    tensor_plan, (x, *_) = check.plan.tensors[str(output.name)], node.inputs
    before = None if x is None else check.plan.tensors[str(x.name)].params
    assert tensor_plan.params is not None and before is not None
    wanted = difference_params(before) if op.form == "difference" else exponential_params(tensor_plan.params)
    if tensor_plan.params != wanted or tensor_plan.kind != ("derived" if op.form == "difference" else "fixed"):
        rule = f"must lie on that of '{x.name}'" if op.form == "difference" and x is not None else "must have a grid from 0 to 1"
        raise check.refuse(f"tensor '{output.name}' {rule}")


def _check_inside(node: ir.Node, check: Check) -> None:
    follower = sole_consumer(node.outputs[0])
    name = str(follower.name) if follower is not None else ""
    behind = check.offers.get(name)
    if not isinstance(behind, SupportedForm) or behind.form != "absorbed" or check.plan.ops[name].runs != "integer":
        raise check.refuse(f"operator '{node.name}' is fused into a group, but no integer Relu or Clip ends the group: change both")
