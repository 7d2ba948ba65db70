"""Replay: make the model again that a plan is about, from the float model, without calibrating."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from converter.calibration.observer import collect_statistics
from converter.canonicalise import PROOF_SAMPLES, canonicalise
from converter.errors import UsageError
from converter.graph.queries import constant, is_float
from converter.graph.source_nodes import name_after_source
from converter.load.files import meant_path
from converter.load.model import Source
from converter.partition.bit_widths import CONTAINER_BITS
from converter.partition.requantize_copies import add_requantize_copies
from converter.plan.records import EXCLUDED, Plan
from converter.plan.serialization import plan_from_json
from converter.planning.validate import apply_transforms, with_forms
from converter.runtime.session import Feed
from converter.system.text_files import read_text
from converter.targets import Target, find_target
from converter.transforms.transform import GraphFacts

__all__ = ["planned_model", "read_plan"]


def read_plan(path: Path) -> Plan:
    """Read a plan from a file.

    Raises:
        UsageError: the file cannot be read or is no plan.
    """
    try:
        return plan_from_json(read_text(path), path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        hint = meant_path(path) or "check the path" if isinstance(error, OSError) else "write a plan with --plan-out and name that"
        raise UsageError(f"the plan cannot be read: {reason}", where=f"--plan-in {path}", hint=hint) from None


def planned_model(source: Source, plan: Plan, feeds: Sequence[Feed], where: Path, target: Target | None = None) -> tuple[ir.Model, Plan]:
    """The canonical model with the plan's transforms, and the plan with what it left unsaid.

    Args:
        source: the float model that the plan was made for.
        plan: for it.
        feeds: one sample or more, of the shape that it was calibrated at.
        where: the plan's file, for messages.
        target: that the plan is for; one of those that are built in if None.

    Raises:
        UsageError: the plan is not for this model.
        ModelError: the model does not run.
    """
    model = canonicalise(source.model, feeds[:PROOF_SAMPLES], target or find_target(plan.target)).model
    name_after_source(source.model, model)
    excluded = frozenset(name for name, op in plan.ops.items() if op.runs == "float" and op.reason == EXCLUDED)
    if plan.bits.activations < CONTAINER_BITS:
        add_requantize_copies(model, excluded)
    shapes = {name: stats.shape for name, stats in collect_statistics(model, feeds[:1]).tensors.items()}
    model = apply_transforms(plan, model, GraphFacts(shapes, excluded), where)
    _check_operators(model, plan, where)
    return model, with_forms(plan, model)


def _check_operators(model: ir.Model, plan: Plan, where: Path) -> None:
    types = {str(n.name): n.op_type for n in model.graph}
    planned = {str(n.name) for n in model.graph if any(is_float(o) for o in n.outputs) and constant(n.outputs[0]) is None}
    foreign, missing = (sorted(names) for names in (plan.ops.keys() - types.keys(), planned - plan.ops.keys()))
    other = sorted(name for name in plan.ops.keys() & types.keys() if plan.ops[name].op_type != types[name])
    hint = "give the float model that the plan was made for, and samples of the same shape"
    for names, what in (
        (foreign, "the plan has an operator '{}' that the model lacks"),
        (missing, "the plan says nothing of operator '{}'"),
        (other, "operator '{}' has another type in the plan"),
    ):
        if names:
            raise UsageError(what.format(names[0]), where=f"--plan-in {where}", hint=hint)
