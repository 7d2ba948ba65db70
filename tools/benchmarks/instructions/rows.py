"""Rows of the table: one model of a network, counted on one core with one version of the runtime."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime_tests.emulation.environment import NEWEST, OLDEST
from tools.benchmarks.instructions.models import NETWORKS

__all__ = ["FLOAT", "FORMS", "OURS", "STATIC", "TARGETS", "Row", "markdown"]

FLOAT, OURS, STATIC = FORMS = ("float", "ours", "quantize_static")
"""What is counted of a network: the exported file, what our converter makes of it, and what ONNX Runtime's own tool does."""

TARGETS = {
    "cortex-a76": "arm64",
    "cortex-a55": "arm64-a55",
    "cortex-a53": "arm64-v8.0",
    "cortex-a72": "arm64-v8.0",
    "max-sve128": "arm64-i8mm",
    "max-sme": "arm64-sme",
}
"""The target of each core, for which our converter makes a file and by whose prices all files are predicted."""


@dataclass(frozen=True)
class Row:
    """One count.

    Attributes:
        network: a key of :data:`tools.benchmarks.instructions.models.NETWORKS`, or the path of a float model.
        core: a key of :data:`TARGETS`.
        runtime: version of ONNX Runtime.
        form: one of :data:`FORMS`.
        target: of the core.
        counted: millions of instructions of one inference.
        predicted: the same by the target's prices.
        error: of the prediction, in percent of the count.
        ratio: count over that of the float model.
        tree: of this project, as git describes it.
        remark: what went wrong.
    """

    network: str
    core: str
    runtime: str
    form: str
    target: str
    counted: float | None = None
    predicted: float | None = None
    error: float | None = None
    ratio: float | None = None
    tree: str = ""
    remark: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What was measured."""
        return self.network, self.core, self.runtime, self.form


def markdown(rows: Sequence[Row]) -> str:
    """Three things: counts, errors of their predictions, and what went wrong."""
    counts = _table(rows, "M instructions", _count)
    errors = _table(rows, "error of the prediction", lambda row: "" if row.error is None else f"{row.error:+.1f} %")
    remarks = [f"* {', '.join(row.key)}: {row.remark}\n" for row in _ordered(rows) if row.remark]
    return "\n".join(filter(None, [counts, errors, "".join(remarks)]))


def _count(row: Row) -> str:
    if row.counted is None:
        return "failed"
    if row.form == FLOAT or not row.ratio:
        return f"{row.counted:.1f}"
    return f"{row.counted:.1f} ({_times(row.ratio)})"


def _times(ratio: float) -> str:
    return f"{1 / ratio:.2f}x fewer" if ratio <= 1 else f"{ratio:.2f}x more"


def _table(rows: Sequence[Row], what: str, cell: Callable[[Row], str]) -> str:
    """A line for each network on each core, three columns for each runtime."""
    ordered = _ordered(rows)
    runtimes = list(dict.fromkeys(row.runtime for row in sorted(ordered, key=lambda r: _place(r.runtime, (NEWEST, OLDEST)))))
    cells = {row.key: cell(row) for row in ordered}
    lines = [["core", "network", *(f"{runtime}: {form}" for runtime in runtimes for form in FORMS)]]
    lines.append(["---"] * 2 + ["---:"] * (len(runtimes) * len(FORMS)))
    for (core, network), _ in itertools.groupby(ordered, key=lambda row: (row.core, row.network)):
        found = (cells.get((network, core, runtime, form), "") for runtime in runtimes for form in FORMS)
        lines.append([core, Path(network).stem, *found])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"**{what}**, by version of ONNX Runtime\n\n{table}"


def _ordered(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (_place(row.core, tuple(TARGETS)), _place(row.network, tuple(NETWORKS)), row.network))


def _place(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)
