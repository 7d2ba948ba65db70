"""Convert the zoo, row by row: ``python -m tools.benchmarks.zoo [--only PATTERN] [--out CSV] [--data PATH]``.

A row is written as soon as it is measured; started again, what is there is not measured again. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.distribute.workers import add_worker_flags, as_done, workers_of
from converter.options import Options
from tools.benchmarks.table_file import append_row, read_rows
from tools.benchmarks.zoo.export import BATCHES
from tools.benchmarks.zoo.networks import NETWORKS
from tools.benchmarks.zoo.rows import Row, Run, markdown, measure_named, wanted

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
    add_worker_flags(parser, jobs=0, pieces="rows")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the rows that are there")
    return parser.parse_args(arguments)


def _run(flags: argparse.Namespace) -> None:
    workers = workers_of(flags)
    rows = read_rows(flags.out, Row)
    if not flags.table:
        flags.models.mkdir(parents=True, exist_ok=True)
        data = None if flags.data is None else flags.data.resolve()  # a worker may stand in another folder
        run = Run(flags.models.resolve(), data, flags.samples, flags.seconds, flags.megabytes)
        done = {row.key for row in rows}
        asked = [(entry.name, how) for entry, how in wanted(NETWORKS, flags.only, flags.exporters)]
        missing = [(name, how) for name, how in asked if (name, how.exporter, BATCHES[how.open_batch]) not in done]
        for _, row in as_done(measure_named, run, missing, workers, files=_files(data), name=lambda piece: piece[0]):
            append_row(flags.out, row)
            rows.append(row)
            print_line(f"{' '.join(row.key)}: exit {row.exit} {row.reason}")
    print_line(markdown(rows))


def _files(data: Path | None) -> list[Path]:
    """What measuring reads; a folder counts with all that is in it."""
    if data is None:
        return []
    return [path for path in data.rglob("*") if path.is_file()] if data.is_dir() else [data]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(_parse(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
