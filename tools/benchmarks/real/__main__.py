"""Judge methods on really trained networks: ``python -m tools.benchmarks.real --data FOLDER [--networks ..] [--methods ..] [--bits ..]``.

A row is written as soon as it is measured; started again, what is there is not measured again. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.distribute.workers import Workers, add_worker_flags, as_done, workers_of
from converter.errors import UsageError
from converter.methods.names import METHOD_NAMES
from converter.options import Options
from converter.partition.policy import parse_placement
from converter.quantization.bit_widths import BitWidths
from tools.benchmarks.real.converted import Workshop
from tools.benchmarks.real.make import PARTS
from tools.benchmarks.real.measure import Run, measure_row
from tools.benchmarks.real.other_tools import PEERS
from tools.benchmarks.real.rows import FLOAT, Row, markdown
from tools.benchmarks.real.tasks import TASKS
from tools.benchmarks.table_file import append_row, read_rows
from tools.benchmarks.tree import described_tree

__all__ = ["DATA_VARIABLE", "main", "wanted"]

DATA_VARIABLE = "BRIDGEQUANT_REAL_DATA"
"""Names the folder of networks and images where the command line does not."""

_USUAL = (FLOAT, "ort-s8s8", "minmax", "mse", "q-hyvit")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.benchmarks.real", description="Judge methods on really trained networks.")
    add = parser.add_argument
    named = os.environ.get(DATA_VARIABLE)
    add("--data", type=Path, default=Path(named) if named else None, metavar="FOLDER", help=f"networks, images (default: ${DATA_VARIABLE})")
    add("--networks", nargs="+", default=tuple(TASKS), choices=tuple(TASKS), metavar="NAME", help=f"of {', '.join(TASKS)}")
    methods = (FLOAT, *METHOD_NAMES, *PEERS)
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
        help=f"rows of their own without these (with those that usually are off), or some joined by +: {', '.join(PARTS)}",
    )
    add("--choice", nargs="+", type=int, default=[0], metavar="K", help="of calibration images (default 0, those beside the networks)")
    add("--part", default="all", choices=("all", "even", "odd"), help="of the images to judge on, by places of their sorted names")
    add("--samples", type=int, default=Options.samples, help=f"that calibrate (default {Options.samples})")
    add("--threads", type=int, default=2, help="of the runtime where images are judged (default 2)")
    add_worker_flags(parser, jobs=0, pieces="rows")
    add("--peers-python", default=sys.executable, metavar="PATH", help="interpreter that has nncf and quark (default: this one)")
    add("--count", action="store_true", help="count ARM64 instructions too, on the emulated machine")
    add("--out", type=Path, default=Path("build/real/real.csv"), metavar="CSV", help="rows; those that are there are kept")
    add("--models", type=Path, default=Path("build/real"), metavar="FOLDER", help="where models go")
    add("--table", action="store_true", help="measure nothing, print the rows that are there")
    flags = parser.parse_args(arguments)
    unknown = [part for some in flags.without for part in some.split("+") if part and part not in PARTS]
    if unknown:
        raise UsageError(f"the search has no part '{unknown[0]}'", where="--without", hint=f"its parts are {', '.join(PARTS)}")
    parser.check_least(flags, samples=1, threads=1)
    parse_placement(flags.placement)
    for bits in flags.bits:
        BitWidths.parse(bits)
    if not flags.table and flags.data is None:
        raise UsageError("the folder of networks and images is not known", where="--data", hint=f"give it, or set {DATA_VARIABLE}")
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
    workers = workers_of(flags)
    rows = read_rows(flags.out, Row)
    if not flags.table:
        flags.models.mkdir(parents=True, exist_ok=True)
        # a worker may stand in another folder
        shop = Workshop(flags.models.resolve(), flags.samples, flags.peers_python)
        run = Run(flags.data.resolve(), shop, flags.threads, flags.count)
        done = {row.key for row in rows}
        missing = [replace(row, tree=described_tree()) for row in wanted(flags) if row.key not in done]
        for found in _measured(run, missing, workers):
            append_row(flags.out, found)
            rows.append(found)
            print_line(f"{' '.join(part for part in found.key if part)}: {found.figures} {found.remark}")
    print_line(markdown(rows))


def _measured(run: Run, rows: Sequence[Row], workers: Workers) -> Iterator[Row]:
    """Rows as they are done."""
    networks = {run.data / TASKS[row.network].model for row in rows if TASKS[row.network].made is None}
    packs = (path for path in run.data.rglob("*") if path.suffix in (".zip", ".npz"))
    for _, found in as_done(measure_row, run, rows, workers, files=[*networks, *packs], name=lambda row: " ".join(filter(None, row.key))):
        yield found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(_parse(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
