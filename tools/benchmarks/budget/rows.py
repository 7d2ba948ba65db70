"""One row of the comparison, and the table of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tools.benchmarks.budget.judge import SCORE

__all__ = ["OURS", "TOOLS", "Row", "markdown"]

OURS = "bridgequant"
TOOLS = (OURS, "nncf", "quark")


@dataclass(frozen=True)
class Row:
    """One network, converted by one tool within one budget: chosen on the images at even places, told of those at odd ones.

    Attributes:
        network: one of :data:`tools.benchmarks.budget.subjects.NETWORKS`.
        tool: ours or another one.
        bits: as ``W8A8``.
        metric: ``score`` of the task, or ``sqnr``.
        limit: the most that it may drop, in percent.
        chosen_drop: of the metric, on the images that it was chosen on.
        evaluations: of quantized models on all of these.
        rankings: of models that were run besides, to find out what to return to a higher precision.
        figure: the task's score of the result, on the other images.
        drop: float's less that.
        drop_error: standard error of that.
        noise: power of the error in percent of that of float's output, of the worst output, on the other images.
        coverage: percent of multiply-accumulates in integer.
        predicted: millions of ARM64 instructions by the target's prices.
        predicted_float: the same of float.
        counted: millions of instructions under emulation.
        counted_float: the same of float.
        tree: of this project, as git describes it.
        remark: what went wrong.
    """

    network: str
    tool: str
    bits: str
    metric: str
    limit: str
    chosen_drop: float | None = None
    evaluations: float | None = None
    rankings: float | None = None
    figure: float | None = None
    drop: float | None = None
    drop_error: float | None = None
    noise: float | None = None
    coverage: float | None = None
    predicted: float | None = None
    predicted_float: float | None = None
    counted: float | None = None
    counted_float: float | None = None
    tree: str = ""
    remark: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What was measured."""
        return self.network, self.tool, self.bits, self.metric, self.limit

    @property
    def holds(self) -> bool | None:
        """Whether the budget is held on the images that it was chosen on."""
        return None if self.chosen_drop is None else self.chosen_drop <= float(self.limit) + 1e-6


_HEAD = (
    "network",
    "drop of at most",
    "tool",
    "there",
    "models",
    "score",
    "drop",
    "error, %",
    "predicted",
    "counted",
    "in integer",
    "remark",
)


def markdown(rows: Sequence[Row]) -> str:
    """The table; rows of one budget stand together, in the order in which budgets were measured first."""
    order: dict[tuple[str, ...], int] = {}
    for row in rows:
        order.setdefault(_budget(row), len(order))
    ordered = sorted(rows, key=lambda r: (order[_budget(r)], TOOLS.index(r.tool)))
    lines = [_HEAD, ("---",) * 3 + ("---:",) * 8 + ("---",), *map(_cells, ordered)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _budget(row: Row) -> tuple[str, ...]:
    return row.network, row.bits, row.metric, row.limit


def _cells(row: Row) -> Sequence[str]:
    metric = "score" if row.metric == SCORE else "output error"
    budget = f"{metric} {row.limit}{'' if row.bits == 'W8A8' else f', {row.bits}'}"
    there = "" if row.chosen_drop is None else f"{row.chosen_drop:.2f}{'' if row.holds else ' (missed)'}"
    models = "" if row.evaluations is None else f"{row.evaluations:.0f}{f' + {row.rankings:.0f}' if row.rankings else ''}"
    drop = "" if row.drop is None else f"{row.drop:.2f} ± {_text(row.drop_error, 2)}"
    costs = [_share(row.predicted, row.predicted_float), _share(row.counted, row.counted_float)]
    figures = [_text(row.figure, 2), drop, _text(row.noise, 2), *costs, _text(row.coverage, 1, " %")]
    return [row.network, budget, row.tool, there, models, *figures, row.remark.replace("|", "/")]


def _share(value: float | None, whole: float | None) -> str:
    return "" if value is None or not whole else f"{value:.1f} ({value / whole:.2f})"


def _text(value: float | None, digits: int = 0, unit: str = "") -> str:
    return "" if value is None else f"{value:.{digits}f}{unit}"
