"""Convert the zoo, row by row: ``python -m tools.benchmarks.zoo [--only PATTERN] [--out CSV] [--data PATH]``.

A row is written as soon as it is measured; started again, what is there is not measured again. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.options import Options
from tools.benchmarks.table_file import append_row, read_rows
from tools.benchmarks.zoo.export import BATCHES
from tools.benchmarks.zoo.networks import NETWORKS
from tools.benchmarks.zoo.rows import Row, Run, markdown, measure_row, wanted

__all__ = ["main"]

_EXPORTERS = ("torchscript", "dynamo")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.benchmarks.zoo", description="Export, convert and judge networks of many kinds.")
    parser.add_argument("--only", default="", metavar="PATTERN", help="networks whose name holds it")
    parser.add_argument("--exporters", nargs="+", default=_EXPORTERS, choices=_EXPORTERS)
    parser.add_argument("--data", type=Path, help="images to calibrate on and to compare on (default: built-in synthetic ones)")
    parser.add_argument("--samples", type=int, default=Options.samples, help=f"that calibrate (default {Options.samples})")
    parser.add_argument("--out", type=Path, default=Path("build/zoo/zoo.csv"), metavar="CSV", help="rows; those that are there are kept")
    parser.add_argument("--models", type=Path, default=Path("build/zoo"), metavar="FOLDER", help="where models go")
    parser.add_argument("--seconds", type=float, default=1200.0, help="that a conversion may take (default 1200)")
    parser.add_argument("--megabytes", type=float, default=10000.0, help="of data that a process may hold (default 10000)")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the rows that are there")
    return parser.parse_args(arguments)


def _run(flags: argparse.Namespace) -> None:
    rows = read_rows(flags.out, Row)
    if not flags.table:
        flags.models.mkdir(parents=True, exist_ok=True)
        run = Run(flags.models, flags.data, flags.samples, flags.seconds, flags.megabytes)
        done = {row.key for row in rows}
        for entry, how in wanted(NETWORKS, flags.only, flags.exporters):
            if (entry.name, how.exporter, BATCHES[how.open_batch]) not in done:
                row = measure_row(run, entry, how)
                append_row(flags.out, row)
                rows.append(row)
                print_line(f"{' '.join(row.key)}: exit {row.exit} {row.reason}")
    print_line(markdown(rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(_parse(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
