"""Does a plan that was read from a file fit this model and this target?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from converter.errors import UsageError
from converter.graph import constant, data_inputs, is_float
from converter.offers import Offer, Refusal
from converter.plan import Plan
from converter.targets import Target

__all__ = ["check_plan"]

_HINT = "write a plan with --plan-out for this model and edit that"


def check_plan(plan: Plan, model: ir.Model, offers: Mapping[str, Offer | Refusal], target: Target, where: Path) -> None:
    """Refuse a plan that the emitter could not follow, or that the runtime would not run as written.

    Raises:
        UsageError: names the first operator or tensor that does not fit.
    """

    def refuse(what: str) -> UsageError:
        return UsageError(what, where=f"--plan-in {where}", hint=_HINT)

    if plan.target != target.name:
        raise refuse(f"the plan is for target '{plan.target}', not '{target.name}'")
    nodes = {str(n.name): n for n in model.graph}
    missing = [n for n in offers if n not in plan.ops]
    unknown = [n for n in plan.ops if n not in nodes]
    if missing or unknown:
        raise refuse(f"the plan does not fit the model: operator '{(unknown or missing)[0]}' is {'unknown' if unknown else 'missing'}")
    for name, op in plan.ops.items():
        node, entry = nodes[name], offers.get(name)
        if op.op_type != node.op_type:
            raise refuse(f"operator '{name}' is {node.op_type}, the plan says {op.op_type}")
        if op.runs == "float":
            continue
        if not isinstance(entry, Offer):
            reason = entry.reason if isinstance(entry, Refusal) else "it works on no float tensor"
            raise refuse(f"operator '{name}' cannot run in integer: {reason}")
        if set(op.constants) != set(entry.constants):
            raise refuse(f"operator '{name}' needs grids for its constant inputs {sorted(entry.constants)}")
        for _, value in data_inputs(node):
            _check_tensor(str(value.name), plan, target, refuse, f"read by the integer operator '{name}'")
        if op.writes == "codes":
            for output in node.outputs:
                if is_float(output) and constant(output) is None and (output.uses() or output.is_graph_output()):
                    _check_tensor(str(output.name), plan, target, refuse, f"written by the integer operator '{name}'")
        elif op.writes == "float" and not entry.may_write_float:
            raise refuse(f"operator '{name}' cannot write float numbers from its integer kernel")


def _check_tensor(name: str, plan: Plan, target: Target, refuse, role: str) -> None:  # type: ignore[no-untyped-def]
    fate = plan.tensors.get(name)
    if fate is None or fate.grid is None:
        raise refuse(f"tensor '{name}' has no grid but is {role}")
    if fate.grid.signed != target.signed_activations or fate.grid.axis is not None:
        kind = "signed" if target.signed_activations else "unsigned"
        raise refuse(f"tensor '{name}' needs a per-tensor grid with {kind} codes on target '{target.name}'")
    source = plan.tensors.get(fate.source)
    if fate.fate == "shared" and (source is None or source.grid != fate.grid):
        raise refuse(f"tensor '{name}' must share the grid of '{fate.source}'")
