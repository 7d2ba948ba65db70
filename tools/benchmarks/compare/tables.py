"""The measurements as Markdown: one table of means, one of top-1 for each width, one with every column."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from tools.benchmarks.compare.cells import FLOAT, Row

__all__ = ["details", "matrix", "means"]


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(r.method for r in rows if r.method != FLOAT))


def _widths(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(r.bits for r in rows if r.bits))


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, marks, *lines))


def means(rows: Sequence[Row]) -> str:
    """Mean drop over the models by method and width; a dash where a model is missing."""
    models = {r.model for r in rows}
    widths = _widths(rows)
    lines = []
    for method in _methods(rows):
        cells = [method]
        for bits in widths:
            drops = [r.drop for r in rows if (r.method, r.bits) == (method, bits) and not r.failure]
            cells.append(f"{mean(drops):.2f}" if len(drops) == len(models) else "–")
        lines.append(cells)
    return _table([f"mean drop, {len(models)} models", *widths], lines)


def matrix(rows: Sequence[Row], bits: str) -> str:
    """Top-1 at one width: a line for each model, a column for each method, the best in bold."""
    here = [r for r in rows if r.bits == bits]
    methods = _methods(here)
    lines = []
    for model in dict.fromkeys(r.model for r in rows):
        found = {r.method: r for r in here if r.model == model}
        float_top1 = next((r.top1 for r in rows if (r.model, r.method) == (model, FLOAT)), None)
        best = max((r.top1 for r in found.values() if not r.failure), default=0.0)
        cells = [model, "–" if float_top1 is None else f"{float_top1:.2f}"]
        cells += [_cell(found.get(method), best) for method in methods]
        lines.append(cells)
    return _table([bits, FLOAT, *methods], lines)


def _cell(row: Row | None, best: float) -> str:
    if row is None:
        return "–"
    if row.failure:
        return "failed"
    return f"**{row.top1:.2f}**" if row.top1 == best else f"{row.top1:.2f}"


def details(rows: Sequence[Row]) -> str:
    """Every row and column."""
    head = ["model", "method", "bits", "top-1 %", "drop", "SQNR dB", "agreement %", "integer coverage %", "conversion s", "MB", "latency"]
    lines = []
    for r in rows:
        figures = [f"{r.top1:.2f}", f"{r.drop:.2f}", f"{r.sqnr_db:.1f}", f"{r.agreement:.1f}"]
        figures += [f"{r.coverage:.1f}" if r.method != FLOAT else "", f"{r.seconds:.0f}" if r.seconds else "", f"{r.megabytes:.2f}"]
        figures.append(f"{r.latency:.2f}" if r.latency else "")
        lines.append([r.model, r.method, r.bits, *(figures if not r.failure else [f"failed: {r.failure}", *[""] * 7])])
    return _table(head, lines)
