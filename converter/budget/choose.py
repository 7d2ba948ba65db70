"""Choose a placement within an accuracy budget: search once, place often, evaluate seldom."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

from converter.budget.front import cheaper_by_one, dearer_one_by_one, price_front
from converter.budget.metrics import Metric
from converter.budget.records import Budget, Candidate, Found, Key, Point
from converter.budget.search import cheapest_within
from converter.partition.assign import explained, most_cost
from converter.partition.cost_model import predict
from converter.planning.make import Planned, float_plan, placer_of, plan_of
from converter.planning.search import Searched
from converter.progress import Progress

__all__ = ["choose_within_budget"]


def choose_within_budget(
    found: Searched, emit: Callable[[Planned], onnx.ModelProto], metric: Metric, limit: float, most: int, progress: Progress
) -> tuple[Planned, Budget]:
    """Find the cheapest placement whose drop is within the limit.

    Args:
        found: quantization parameters, and what could run in integer.
        emit: makes a model of a plan.
        metric: judges it.
        limit: the largest drop allowed, in the metric's unit.
        most: evaluations of quantized models, at least 1.
        progress: who is watching.

    Returns:
        what to emit, which misses the limit if nothing holds it, and the record of the search.
    """
    shapes = {name: stats.shape for name, stats in found.seen.tensors.items()}
    float_cost = predict(found.source, None, {}, shapes, found.target).total
    placed = placer_of(found)
    front = price_front(placed, float_cost, most_cost(found.model, found.seen, found.target))
    if not front:  # nothing pays in integer, and a float model loses nothing
        return plan_of(found, float_plan(found)), Budget(
            metric.name, metric.unit, metric.data, limit, metric.float_score, (), None, True, 0
        )
    fastest, made = front[0], dict[Key, Planned]()

    def score_of(candidate: Candidate) -> float:
        progress.step(len(made), most)
        made[candidate.key] = plan_of(found, explained(candidate.placed.plan, fastest.placed.plan))
        return metric.score(emit(made[candidate.key]))

    result = cheapest_within(
        front,
        score_of,
        metric.float_score,
        limit,
        most,
        between=lambda low, high: dearer_one_by_one(placed, low, high),
        cheaper=lambda here: cheaper_by_one(placed, here, fastest),
    )
    return made[result.best.candidate.key], _record(front, result, metric, limit, float_cost)


def _record(front: Sequence[Candidate], result: Found, metric: Metric, limit: float, float_cost: float) -> Budget:
    trials = {trial.candidate.key: trial for trial in result.trials}
    candidates = {each.key: each for each in (*front, *(trial.candidate for trial in result.trials))}
    ordered = sorted(candidates.values(), key=lambda c: (c.placed.cost, c.placed.loss))
    points = []
    for each in ordered:
        trial = trials.get(each.key)
        integer = sum(op.runs == "integer" for op in each.placed.plan.ops.values())
        share = each.placed.cost / float_cost
        measured = (None, None) if trial is None else (trial.score, trial.drop)
        points.append(Point(each.label, share, each.placed.loss, integer, *measured))
    chosen = [each.key for each in ordered].index(result.best.candidate.key)
    return Budget(metric.name, metric.unit, metric.data, limit, metric.float_score, tuple(points), chosen, result.met, len(result.trials))
