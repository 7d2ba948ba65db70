"""A plan for a calibrated model: made by a method, found within a budget, or read from a file."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

from converter.budget.choose import choose_within_budget
from converter.budget.metrics import METRICS, Evaluation, open_metric
from converter.budget.records import Budget
from converter.errors import UsageError
from converter.load.metadata import class_names
from converter.options import Options
from converter.plan.records import Plan
from converter.planning.make import Planned, adopted
from converter.planning.make import make_plan as plan_by_method
from converter.planning.replay import read_plan
from converter.planning.search import search
from converter.progress import SILENT, Progress
from converter.sensitivity.bridge_blocks import find_structure
from converter.sensitivity.context import ReconstructionBlock
from converter.stages.calibrate import Calibrated
from converter.stages.emit import emitted
from converter.verify.parity import selected_rows

__all__ = ["adopt_plan", "make_plan", "plan_from_file", "plan_within_budget"]


def make_plan(at: Calibrated, progress: Progress = SILENT) -> Planned:
    """Let the method of the options decide what runs in integer, and how numbers become codes."""
    model, feeds, blocks = at.canonical.model, at.samples.calibration, _reconstruction_blocks(at)
    planned = plan_by_method(
        model, at.seen, at.look, feeds, blocks, at.target, at.options, at.excluded, losses=at.losses, progress=progress
    )
    return _with_source(planned, at)


def plan_within_budget(at: Calibrated, progress: Progress = SILENT) -> tuple[Planned, Budget]:
    """Let the method decide how numbers become codes, and measured accuracy what runs in integer; the options hold the budget.

    Returns:
        the cheapest plan found within the budget, or if there is none the one that drops least, and the record of the search.

    Raises:
        UsageError, CalibrationError: the metric does not fit the model, or the evaluation data cannot be read.
    """
    options = at.options
    if options.max_drop is None:
        raise UsageError("the options hold no budget", where="--max-drop", hint="give one")
    progress.stage("evaluate")
    if options.metric not in METRICS and options.evaluation is not None:
        progress.note("--eval is not read: the command of --metric has data of its own")
    metric = open_metric(options.metric, _evaluation(at))
    progress.stage("plan")
    model, feeds, blocks = at.canonical.model, at.samples.calibration, _reconstruction_blocks(at)
    found = search(model, at.seen, at.look, feeds, blocks, at.target, options, at.excluded, losses=at.losses, progress=progress)
    progress.stage("budget")
    planned, budget = choose_within_budget(
        found, lambda planned: emitted(at, planned), metric, options.max_drop, options.max_evaluations, progress
    )
    return _with_source(planned, at), budget


def _with_source(planned: Planned, at: Calibrated) -> Planned:
    return replace(planned, plan=replace(planned.plan, source=at.source.digest))


def adopt_plan(at: Calibrated, plan: Plan, where: Path | None = None) -> Planned:
    """Use a plan that was made before, and perhaps edited.

    Args:
        at: the model that the plan is for.
        plan: which the result holds as it will be carried out.
        where: its file, if it has one, for messages.

    Raises:
        UsageError: it does not fit the model or the options.
    """
    where = Path("the given plan") if where is None else where
    _check_widths(plan, at.options, where)
    return adopted(plan, at.canonical.model, at.seen, at.look, at.target, at.options, at.excluded, where)


def plan_from_file(path: Path, options: Options) -> Plan:
    """Read a plan, and refuse it if it was made for other bit widths or inputs than the options say.

    Raises:
        UsageError: it was, or it cannot be read.
    """
    plan = read_plan(path)
    _check_widths(plan, options, path)
    return plan


def _check_widths(plan: Plan, options: Options, where: Path) -> None:
    if plan.bits != options.widths:
        raise UsageError(
            f"the plan is for {plan.bits}, not for {options.bits}",
            where=f"--plan-in {where}",
            hint="write one with --plan-out and edit that",
        )
    if plan.io != options.io:
        said = "float numbers" if plan.io == "float" else f"{plan.io} pixels"
        raise UsageError(f"the plan is for inputs of {said}", where=f"--plan-in {where}", hint=f"give --io {plan.io}")


def _reconstruction_blocks(at: Calibrated) -> tuple[ReconstructionBlock, ...]:
    return tuple(ReconstructionBlock(block.nodes, block.outputs) for block in find_structure(at.canonical.model, at.shapes).blocks)


def _evaluation(at: Calibrated) -> Evaluation:
    return Evaluation(
        at.source,
        at.options.evaluation,
        at.inputs,
        at.preprocess,
        class_names(at.source.metadata),
        {name: loss.axis for name, loss in at.losses.items() if loss.counts_scores},
        selected_rows(at.canonical.model, at.samples.held_aside[0]),
        at.target.session_settings.get(platform.machine(), {}),
        at.options.threads,
    )
