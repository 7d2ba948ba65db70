"""Rows of the table: what was measured of one network, converted in one way."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tools.benchmarks.real.networks.published import PUBLISHED
from tools.benchmarks.real.tasks import TASKS

__all__ = ["FLOAT", "Row", "markdown"]

FLOAT = "float"
_COMPARED = ("easyquant", "fq-vit", "ptq4vit", "repq-vit", "q-hyvit")
"""Methods whose mean drops are told beside each other: the published ones and ours."""


@dataclass(frozen=True)
class Row:
    """One network, made by one method and judged on some of the images.

    Attributes:
        network: a key of :data:`tools.benchmarks.real.tasks.TASKS`.
        method: ours or another tool.
        bits: as ``W8A8``; empty of float.
        placement: of our own methods.
        without: parts of the search that were switched off, joined by ``+``.
        choice: which calibration images; 0 are those that stand beside the network.
        part: of the images, in the order of their names: ``all``, ``even`` or ``odd`` places.
        figures: all figures of the task, as ``name=value`` joined by spaces.
        figure: the main one.
        drop: of float less that of int8, on the same images.
        drop_error: standard error of that.
        sqnr_db: lowest of the outputs, on all judged images.
        coverage: percent of multiply-accumulates in integer.
        predicted: millions of ARM64 instructions by the target's prices.
        predicted_float: the same of float.
        counted: the same as counted under emulation.
        seconds: of processor time that making the model took.
        megabytes: of memory it took at most.
        tree: of this project, as git describes it.
        remark: what went wrong.
    """

    network: str
    method: str
    bits: str = ""
    placement: str = ""
    without: str = ""
    choice: str = "0"
    part: str = "all"
    figures: str = ""
    figure: float | None = None
    drop: float | None = None
    drop_error: float | None = None
    sqnr_db: float | None = None
    coverage: float | None = None
    predicted: float | None = None
    predicted_float: float | None = None
    counted: float | None = None
    seconds: float | None = None
    megabytes: float | None = None
    tree: str = ""
    remark: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What was measured."""
        return self.network, self.method, self.bits, self.placement, self.without, self.choice, self.part


def markdown(rows: Sequence[Row]) -> str:
    """A table for each network, and the mean drops of the methods."""
    order = {name: place for place, name in enumerate(TASKS)}
    ordered = sorted(rows, key=lambda r: (order[r.network], r.part, r.choice, -int(r.method == FLOAT), r.bits != "W8A8", r.bits))
    tables = [_network_table(name, list(some)) for name, some in itertools.groupby(ordered, key=lambda r: r.network)]
    return "\n".join([*tables, *_mean_drops(rows)])


def _mean_drops(rows: Sequence[Row]) -> list[str]:
    """At each width the mean drop of each method, over the published networks scored in percent of which all methods have a row."""
    usual = [r for r in rows if (r.without, r.choice, r.part) == ("", "0", "all") and r.drop is not None]
    whole = [r for r in usual if TASKS[r.network].figure.endswith("%")]
    tables = []
    for bits in sorted({r.bits for r in whole}, reverse=True):
        drops = {(r.network, r.method): float(r.drop or 0.0) for r in whole if r.bits == bits and r.placement == "latency"}
        methods = [m for m in _COMPARED if any(method == m for _, method in drops)]
        networks = [n for n in PUBLISHED if all((n, m) in drops for m in methods)]
        if len(methods) < 2 or not networks:
            continue
        means = {m: sum(drops[n, m] for n in networks) / len(networks) for m in methods}
        lines = [f"| {m} | {mean:.2f} |\n" for m, mean in means.items()]
        tables.append(f"**mean drop at {bits}, points: {', '.join(networks)}**\n\n| method | drop |\n| --- | ---: |\n{''.join(lines)}")
    return tables


def _network_table(name: str, rows: Sequence[Row]) -> str:
    task = TASKS[name]
    head = ["method", "bits", "placement", "without", "images", task.figure, "drop", "also", "SQNR dB", "in integer", "M instructions"]
    head += ["seconds", "MB", "remark"]
    lines = [head, ["---"] * 5 + ["---:"] * 8 + ["---"]]
    lines += [_cells(row) for row in rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"**{name}**{f' ({task.note})' if task.note else ''}\n\n{table}"


def _cells(row: Row) -> list[str]:
    also = ", ".join(row.figures.split()[1:])
    cost = _text(row.predicted, 1) if row.counted is None else f"{_text(row.counted, 1)} counted"
    if row.predicted is not None and row.predicted_float:
        cost += f" ({row.predicted / row.predicted_float:.2f})"
    drop = "" if row.drop is None else f"{row.drop:.2f} ± {_text(row.drop_error, 2)}"
    images = f"choice {row.choice}, {row.part}"
    figures = [_text(row.figure, 2), drop, also, _text(row.sqnr_db, 1), _text(row.coverage, 1, " %"), cost]
    how = [row.method, row.bits, row.placement, row.without.replace("+", ", "), images]
    return [*how, *figures, _text(row.seconds), _text(row.megabytes), row.remark.replace("|", "/")]


def _text(value: float | None, digits: int = 0, unit: str = "") -> str:
    return "" if value is None else f"{value:.{digits}f}{unit}"


def as_text(figures: Mapping[str, float]) -> str:
    """Figures of a task as they stand in a row."""
    return " ".join(f"{name.replace(' ', '_')}={value:.2f}" for name, value in figures.items())
