"""Accuracy budgets of this project and of other tools: ``python -m tools.benchmarks.budget --data FOLDER [--networks ..] [--tools ..]``.

A row is written as soon as it is measured; started again, what is there is not measured again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.errors import UsageError
from converter.options import Options
from converter.quantization.bit_widths import BitWidths
from tools.benchmarks.budget.judge import METRICS
from tools.benchmarks.budget.make import Workshop
from tools.benchmarks.budget.measure import measure_row
from tools.benchmarks.budget.rows import OURS, TOOLS, Row, markdown
from tools.benchmarks.budget.subjects import NETWORKS
from tools.benchmarks.real.__main__ import DATA_VARIABLE
from tools.benchmarks.table_file import append_row, read_rows
from tools.benchmarks.tree import described_tree

__all__ = ["main", "wanted"]

_BUDGETS = ("score:0", "sqnr:1")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.benchmarks.budget", description="Accuracy budgets of this project and of other tools.")
    add = parser.add_argument
    named = os.environ.get(DATA_VARIABLE)
    add("--data", type=Path, default=Path(named) if named else None, metavar="FOLDER", help=f"see docs/real.md (default: ${DATA_VARIABLE})")
    add("--networks", nargs="+", default=NETWORKS, choices=NETWORKS, metavar="NAME", help=f"of {', '.join(NETWORKS)}")
    add("--tools", nargs="+", default=TOOLS, choices=TOOLS, metavar="NAME", help=f"of {', '.join(TOOLS)}")
    add("--bits", nargs="+", default=["W8A8"], metavar="WxAy", help="of our own; others have 8 (default W8A8)")
    add(
        "--budgets",
        nargs="+",
        default=_BUDGETS,
        metavar="METRIC:LIMIT",
        help=f"{' or '.join(METRICS)}, percent (default {' '.join(_BUDGETS)})",
    )
    add("--evaluations", type=int, default=Options.max_evaluations, metavar="N", help="models evaluated at most (default 12)")
    add("--threads", type=int, default=1, help="of the runtime where images are judged (default 1)")
    add("--nncf-python", default=sys.executable, metavar="PATH", help="interpreter that has nncf (default: this one)")
    add("--quark-python", default=sys.executable, metavar="PATH", help="interpreter that has quark (default: this one)")
    add("--count", action="store_true", help="count ARM64 instructions too, on the emulated machine")
    add("--out", type=Path, default=Path("build/budget/budget.csv"), metavar="CSV", help="rows; those that are there are kept")
    add("--models", type=Path, default=Path("build/budget"), metavar="FOLDER", help="where models go")
    add("--table", action="store_true", help="measure nothing, print the rows that are there")
    flags = parser.parse_args(arguments)
    parser.check_least(flags, evaluations=1, threads=1)
    for bits in flags.bits:
        BitWidths.parse(bits)
    for budget in flags.budgets:
        _check_budget(budget)
    if not flags.table and (flags.data is None or not flags.data.is_dir()):
        raise UsageError("the folder of networks and images is not there", where="--data", hint="docs/real.md says what is in it")
    return flags


def _check_budget(budget: str) -> None:
    metric, _, limit = budget.partition(":")
    try:
        good = metric in METRICS and float(limit) >= 0.0
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"'{budget}' is no budget", where="--budgets", hint=f"give {' or '.join(f'{m}:0.5' for m in METRICS)}")


def wanted(flags: argparse.Namespace) -> Iterator[Row]:
    """Rows that are asked for, without figures; other tools have 8 bits only."""
    for network in flags.networks:
        for budget in flags.budgets:
            metric, _, limit = budget.partition(":")
            for tool in flags.tools:
                for bits in flags.bits if tool == OURS else [b for b in flags.bits if b == "W8A8"]:
                    yield Row(network, tool, bits, metric, limit)


def _run(flags: argparse.Namespace) -> None:
    rows = read_rows(flags.out, Row)
    if not flags.table:
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        pythons = {"nncf": flags.nncf_python, "quark": flags.quark_python}
        shop = Workshop(flags.data.resolve(), flags.models.resolve(), pythons, most=flags.evaluations)
        done = {row.key for row in rows}
        for row in wanted(flags):
            if row.key not in done:
                rows.append(measure_row(shop, replace(row, tree=described_tree()), counts=flags.count, threads=flags.threads))
                append_row(flags.out, rows[-1])
                print_line(f"{' '.join(row.key)}: {rows[-1].drop} {rows[-1].predicted} {rows[-1].remark}")
    print_line(markdown(rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(_parse(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
