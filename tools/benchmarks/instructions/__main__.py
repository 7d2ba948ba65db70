"""Count networks on emulated ARM64 cores: ``python -m tools.benchmarks.instructions --calib PATH [--out CSV] [--cores ...] [--table]``.

Of each network the float model, what our converter makes of it for the core, and what ``quantize_static`` makes of it. A row is written
as soon as it is measured; started again, what is there is not measured again. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.errors import UsageError
from runtime_tests.emulation.environment import NEWEST, OLDEST, RUNTIME_CHOICE, environment, runtime_version
from runtime_tests.emulation.setup import require
from tools.benchmarks.instructions.measure import Run, measure_row
from tools.benchmarks.instructions.models import NETWORKS, Workshop, check_network
from tools.benchmarks.instructions.rows import FLOAT, FORMS, TARGETS, Row, markdown
from tools.benchmarks.table_file import append_row, read_rows
from tools.benchmarks.tree import described_tree

__all__ = ["main", "wanted"]

_USUAL = ("cortex-a76", "cortex-a55", "cortex-a53")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.benchmarks.instructions", description="Count the instructions of networks on ARM64 cores.")
    add = parser.add_argument
    names = f"of {', '.join(NETWORKS)} (default all), or float models"
    add("--networks", nargs="+", default=tuple(NETWORKS), metavar="NAME|FLOAT.onnx", help=names)
    add("--cores", nargs="+", default=_USUAL, choices=tuple(TARGETS), metavar="CORE", help=f"of {', '.join(TARGETS)} (default three)")
    add("--runtimes", nargs="+", default=(NEWEST, OLDEST), metavar="VERSION", help=f"ONNX Runtime: {RUNTIME_CHOICE} (default both)")
    add("--calib", type=Path, metavar="PATH", help="images to calibrate on (default: built-in synthetic ones)")
    add("--out", type=Path, default=Path("build/instructions/instructions.csv"), metavar="CSV", help="rows; those that are there are kept")
    add("--models", type=Path, default=Path("build/instructions"), metavar="FOLDER", help="where models go")
    add("--root", type=Path, metavar="DIR", help="folder of the emulated machine's set-up")
    add("--table", action="store_true", help="measure nothing, print the rows that are there")
    flags = parser.parse_args(arguments)
    for network in flags.networks:
        check_network(network)
    if flags.calib is not None and not flags.calib.exists():
        raise UsageError("there are no such images", where=f"--calib {flags.calib}", hint="give a folder, a zip, .npz or .npy")
    return flags


def wanted(networks: Sequence[str], cores: Sequence[str], runtimes: Sequence[str]) -> Iterator[Row]:
    """Rows without figures, a runtime after the other, and float first of each network.

    Raises:
        UsageError: there is no such runtime.
    """
    for runtime, core, network, form in itertools.product(map(runtime_version, runtimes), cores, networks, FORMS):
        yield Row(network, core, runtime, form, TARGETS[core])


def _run(flags: argparse.Namespace) -> None:
    rows = {row.key: row for row in read_rows(flags.out, Row)}
    if not flags.table:
        _measure(flags, rows)
    print_line(markdown(list(rows.values())))


def _measure(flags: argparse.Namespace, rows: dict[tuple[str, str, str, str], Row]) -> None:
    """Add what is missing, here and to the file."""
    missing = [row for row in wanted(flags.networks, flags.cores, flags.runtimes) if row.key not in rows]
    run, tree = Run(Workshop(flags.models, flags.calib), flags.root), described_tree()
    for folder in (flags.models, flags.out.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for runtime in dict.fromkeys(row.runtime for row in missing):
        require(environment(flags.root, runtime))
    for row in missing:
        floats = rows.get((*row.key[:-1], FLOAT))
        found = measure_row(run, replace(row, tree=tree), None if floats is None else floats.counted)
        append_row(flags.out, found)
        rows[found.key] = found
        print_line(f"{' '.join(found.key)}: {found.counted or 'failed'} {found.remark}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(_parse(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
