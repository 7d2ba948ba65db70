"""Plans: of what a method found, or read from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from converter.calibration.observer import CalibrationStatistics
from converter.methods.problem import Problem
from converter.options import Options
from converter.partition.assign import placer
from converter.partition.policy import Placer
from converter.partition.write_assignment import write_assignment
from converter.plan.choice import Choice
from converter.plan.records import Plan
from converter.planning.average_weights import with_average_codes
from converter.planning.problem import Offers, method_name, offers_of, placed, shapes_of
from converter.planning.registry import METHODS
from converter.planning.search import Look, Searched, search
from converter.planning.stored_weights import with_stored_weights
from converter.planning.validate import adopt_plan, apply_transforms, check_plan, with_forms
from converter.progress import SILENT, Progress
from converter.runtime.session import Feed
from converter.sensitivity.context import ReconstructionBlock, quantized_edges_of
from converter.sensitivity.output_loss import OutputLoss
from converter.targets import Target
from converter.torch_backend.workers import one_thread_each
from converter.transforms.transform import GraphFacts

__all__ = ["Planned", "adopted", "float_plan", "make_plan", "placer_of", "plan_of"]


@dataclass(frozen=True)
class Planned:
    """A plan and what it is for.

    Attributes:
        model: the canonical model with the plan's transforms applied.
        plan: assigned for it.
        offers: what could run in integer there.
        loss: by which candidates were judged; empty where none was needed.
        tensor_sensitivity: what the rounding of tensors adds to the loss, by their names, where the method estimated it.
        operator_sensitivity: the same of the constants of operators, by the operators' names.
    """

    model: ir.Model
    plan: Plan
    offers: Offers
    loss: str = ""
    tensor_sensitivity: Mapping[str, float] = field(default_factory=dict)
    operator_sensitivity: Mapping[str, float] = field(default_factory=dict)


def make_plan(
    model: ir.Model,
    seen: CalibrationStatistics,
    look: Look,
    feeds: Sequence[Feed],
    reconstruction_blocks: Sequence[ReconstructionBlock],
    target: Target,
    options: Options,
    excluded: frozenset[str],
    *,
    losses: Mapping[str, OutputLoss] | None = None,
    progress: Progress = SILENT,
) -> Planned:
    """Let the method of the options make a plan; arguments as for :func:`search`."""
    found = search(model, seen, look, feeds, reconstruction_blocks, target, options, excluded, losses=losses, progress=progress)
    found.problem.begin("placement")
    return plan_of(
        found, placed(found.model, found.offers, found.choice, found.seen, target, options, method_name(options), found.approximated)
    )


def placer_of(found: Searched) -> Placer:
    """What gives placements of what a method found, for any price of accuracy."""
    return placer(
        found.model,
        found.offers,
        found.choice,
        found.seen,
        found.target,
        method=method_name(found.options),
        bits=found.options.widths,
        cheaper=found.approximated,
    )


def float_plan(found: Searched) -> Plan:
    """The placement of all operators in float."""
    empty = Plan(method_name(found.options), found.options.widths, found.target.name, {}, {})
    return write_assignment(found.model, found.offers, found.choice, frozenset(), empty)


def plan_of(found: Searched, plan: Plan) -> Planned:
    """Complete a placement: transforms, and constants refined for what runs in integer.

    Args:
        found: what it is a placement of.
        plan: as placed.
    """
    offers = found.offers | {name: entry for name, entry in found.approximated.items() if plan.ops[name].coefficients}
    plan = replace(plan, transforms=found.transforms, io=found.options.io)
    refine, problem = METHODS[found.options.method].refine, found.problem
    if refine is not None and problem.context is not None:
        # now it is known which operators run in integer, and so who reads what through a grid
        context = replace(problem.context, quantized_edges=quantized_edges_of(found.model, plan))
        with one_thread_each():
            plan = refine(replace(problem, context=context), plan)
    plan = with_average_codes(found.model, plan)
    if found.options.prefer == "size":
        plan = with_stored_weights(found.model, plan)
    choice = found.choice
    return Planned(found.model, plan, offers, _judged_by(problem, choice), choice.activation_sensitivity, choice.weight_sensitivity)


def _judged_by(problem: Problem, choice: Choice) -> str:
    """By which loss, for the report."""
    if problem.context is None:
        return ""
    blind, judged = choice.blind
    said = [problem.context.loss] if problem.context.loss else []
    if blind and problem.context.values is None:
        said.append(f"{blind} of {judged} layers by the error of their own outputs, as no gradient reaches them")
    if choice.given_up:
        said.append("ranges of MSE, as those that gradients chose changed the outputs far more")
    return "; ".join(said)


def adopted(
    given: Plan,
    model: ir.Model,
    seen: CalibrationStatistics,
    look: Look,
    target: Target,
    options: Options,
    excluded: frozenset[str],
    where: Path,
) -> Planned:
    """Use a plan that was read from a file, `where`.

    Raises:
        converter.errors.UsageError: it does not fit the model or the target.
    """
    plan = adopt_plan(given, excluded)
    changed = apply_transforms(plan, model, GraphFacts(shapes_of(seen), excluded), where)
    offers = offers_of(changed, look(changed) if changed is not model else seen, target, options, excluded)
    plan = with_forms(plan, changed)
    check_plan(plan, changed, offers, target, where)
    return Planned(changed, plan, offers)
