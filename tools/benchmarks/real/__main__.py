"""Judge methods on really trained networks: ``python -m tools.benchmarks.real --data FOLDER [--networks ..] [--methods ..] [--bits ..]``.

A row is written as soon as it is measured; started again, what is there is not measured again. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.errors import UsageError
from converter.options import Options
from tools.benchmarks.real.make import METHODS, PARTS, PEERS
from tools.benchmarks.real.measure import Run, measure_row
from tools.benchmarks.real.rows import FLOAT, Row, markdown
from tools.benchmarks.real.tasks import TASKS
from tools.benchmarks.table_file import append_row, read_rows

__all__ = ["main", "wanted"]

_USUAL = (FLOAT, "ort-s8s8", "minmax", "mse", "q-hyvit")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.benchmarks.real", description="Judge methods on really trained networks.")
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="FOLDER", help="with the networks and images; docs/real.md says which")
    add("--networks", nargs="+", default=tuple(TASKS), choices=tuple(TASKS), metavar="NAME", help=f"of {', '.join(TASKS)}")
    methods = (FLOAT, *METHODS)
    add(
        "--methods",
        nargs="+",
        default=_USUAL,
        choices=methods,
        metavar="NAME",
        help=f"of {', '.join(methods)} (default {' '.join(_USUAL)})",
    )
    add("--bits", nargs="+", default=["W8A8"], metavar="WxAy", help="of our own methods (default W8A8)")
    add("--placement", default=Options.placement, metavar="HOW", help=f"of our own methods (default {Options.placement})")
    add(
        "--without",
        nargs="*",
        default=[""],
        metavar="PART",
        help=f"rows of their own without these, or some joined by +: {', '.join(PARTS)}",
    )
    add("--choice", nargs="+", type=int, default=[0], metavar="K", help="of calibration images (default 0, those beside the networks)")
    add("--part", default="all", choices=("all", "even", "odd"), help="of the images to judge on, by places of their sorted names")
    add("--samples", type=int, default=Options.samples, help=f"that calibrate (default {Options.samples})")
    add("--threads", type=int, default=2, help="of the runtime where images are judged (default 2)")
    add("--count", action="store_true", help="count ARM64 instructions too, on the emulated machine")
    add("--out", type=Path, default=Path("build/real/real.csv"), metavar="CSV", help="rows; those that are there are kept")
    add("--models", type=Path, default=Path("build/real"), metavar="FOLDER", help="where models go")
    add("--table", action="store_true", help="measure nothing, print the rows that are there")
    flags = parser.parse_args(arguments)
    unknown = [part for some in flags.without for part in some.split("+") if part and part not in PARTS]
    if unknown:
        raise UsageError(f"the search has no part '{unknown[0]}'", where="--without", hint=f"its parts are {', '.join(PARTS)}")
    if not flags.table and not flags.data.is_dir():
        raise UsageError("there is no such folder", where=f"--data {flags.data}", hint="docs/real.md says what is in it")
    return flags


def wanted(flags: argparse.Namespace) -> Iterator[Row]:
    """Rows that are asked for, without figures; what a method does not know is left out: other tools have 8 bits and no parts."""
    for choice in flags.choice:
        for method in flags.methods:
            for bits in [""] if method == FLOAT else ["W8A8"] if method in PEERS else flags.bits:
                for without in flags.without if method == "q-hyvit" else [""]:
                    placement = "" if method == FLOAT or method in PEERS else flags.placement
                    for network in flags.networks:
                        yield Row(network, method, bits, placement, without, str(choice), flags.part)


def _run(flags: argparse.Namespace) -> None:
    rows = read_rows(flags.out, Row)
    if not flags.table:
        flags.models.mkdir(parents=True, exist_ok=True)
        run = Run(flags.data, flags.models, flags.samples, flags.threads, flags.count)
        done = {row.key for row in rows}
        for row in wanted(flags):
            if row.key not in done:
                found = measure_row(run, replace(row, tree=_tree()))
                append_row(flags.out, found)
                rows.append(found)
                print_line(f"{' '.join(part for part in row.key if part)}: {found.figures} {found.remark}")
    print_line(markdown(rows))


def _tree() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(_parse(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
