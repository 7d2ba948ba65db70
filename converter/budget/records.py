"""What a search within an accuracy budget hands on."""

from __future__ import annotations

from dataclasses import dataclass

from converter.errors import BoundMissedError
from converter.partition.policy import Placed

__all__ = ["Budget", "Candidate", "Found", "Key", "Point", "Trial", "budget_missed", "told"]

Key = frozenset[tuple[str, str]]
"""Operators that run in integer, each with its form: two placements of the same key are the same model."""


@dataclass(frozen=True)
class Candidate:
    """A placement that could be chosen.

    Attributes:
        placed: plan, predicted cost in the target's unit, and predicted loss.
        label: how it came about.
        price: of one unit of the loss, in runs of the float model.
        floats: operators that were made float on top of what the price says.
        integers: operators that were made integer on top of it.
    """

    placed: Placed
    label: str
    price: float
    floats: frozenset[str] = frozenset()
    integers: frozenset[str] = frozenset()

    @property
    def key(self) -> Key:
        """By which candidates of the same model are known."""
        ops = self.placed.plan.ops
        return frozenset((name, f"{op.form} {op.coefficients}") for name, op in ops.items() if op.runs == "integer")


@dataclass(frozen=True)
class Trial:
    """A candidate that was evaluated.

    Attributes:
        candidate: which.
        score: measured; more is better.
        drop: the float model's score less this one.
    """

    candidate: Candidate
    score: float
    drop: float


@dataclass(frozen=True)
class Found:
    """How a search ended.

    Attributes:
        trials: in the order of evaluation.
        best: the cheapest within the budget; if there is none, the one that drops least.
        met: whether it is within the budget.
    """

    trials: tuple[Trial, ...]
    best: Trial
    met: bool


@dataclass(frozen=True)
class Point:
    """One placement, for the report.

    Attributes:
        label: how it came about.
        cost: predicted, as a share of the float model's.
        loss: predicted, what quantization adds to the method's own loss.
        integer: operators that run in integer.
        score: measured on the evaluation data; None if it was not evaluated.
        drop: float's score less that; None as above.
    """

    label: str
    cost: float
    loss: float
    integer: int
    score: float | None = None
    drop: float | None = None


@dataclass(frozen=True)
class Budget:
    """What became of an accuracy budget.

    Attributes:
        metric: ``top1``, ``agreement``, ``sqnr`` or the command.
        unit: of scores and drops, as a word.
        data: what was evaluated on, a clause.
        limit: the drop that was allowed.
        float_score: of the float model.
        points: all placements of the front and those that were tried beside it, the cheapest first.
        chosen: index of the point that was taken; None where nothing pays in integer and nothing had to be evaluated.
        met: whether its drop is within the limit.
        evaluations: of quantized models.
    """

    metric: str
    unit: str
    data: str
    limit: float
    float_score: float
    points: tuple[Point, ...]
    chosen: int | None
    met: bool
    evaluations: int

    @property
    def taken(self) -> Point | None:
        """The point that was taken."""
        return None if self.chosen is None else self.points[self.chosen]


def budget_missed(budget: Budget, written: str, hint: str) -> BoundMissedError:
    """The error of a budget that nothing holds.

    Args:
        budget: with at least one evaluation.
        written: what became of the files, a clause.
        hint: what to do.
    """
    best = budget.taken
    assert best is not None and best.drop is not None and best.score is not None
    unit = f" {budget.unit}" if budget.unit else ""
    what = (
        f"the least drop found is {best.drop:.4g}{unit} ({best.score:.4g}, float {budget.float_score:.4g}), {budget.limit:g} were allowed"
    )
    return BoundMissedError(f"{what}; {written}", where=f"--max-drop {budget.limit:g}, {budget.metric} on {budget.data}", hint=hint)


def told(budget: Budget) -> str:
    """What became of a budget, in one line."""
    taken, unit = budget.taken, f" {budget.unit}" if budget.unit else ""
    if taken is None or taken.score is None or taken.drop is None:
        return f"drop of at most {budget.limit:g}{unit} in {budget.metric}: nothing pays in integer, so that all is float"
    scores = f"{budget.metric} {taken.score:.4g}, float {budget.float_score:.4g}, {budget.data}"
    models = "model" if budget.evaluations == 1 else "models"
    missed = "" if budget.met else ", which is missed"
    return f"drop {taken.drop:.4g} of at most {budget.limit:g}{unit}{missed} ({scores}); {budget.evaluations} {models} evaluated"
