"""Measure the whole matrix: ``python -m tools.benchmarks.compare --data cifar10_test.zip --calib cifar10_train.zip --out DIR``.

Each row is written as soon as it is measured; started again with the same folder, what is there is not measured again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from converter.cli.command import Parser, exit_code, print_line
from converter.distribute.workers import Workers, add_worker_flags, as_done, workers_of
from converter.errors import UsageError
from converter.load.files import write_files
from converter.load.model import load
from converter.methods.names import METHOD_NAMES
from converter.options import Options
from converter.partition.policy import parse_placement
from converter.quantization.bit_widths import BitWidths
from models.images import find_images
from tools.benchmarks.compare.cells import FLOAT, Cell, Row, cells_of
from tools.benchmarks.compare.measure import Bench, measure, measure_latency
from tools.benchmarks.compare.peers import PEERS, available_peers
from tools.benchmarks.compare.plot import plot_means
from tools.benchmarks.compare.settings import keep_settings
from tools.benchmarks.compare.sources import STRESSED, checkpoint_names, prepare_images, prepare_model
from tools.benchmarks.compare.tables import details, matrix, means
from tools.benchmarks.compare.variants import Variant, ablation, plain, seed_ending
from tools.benchmarks.table_file import append_row, read_rows

__all__ = ["main"]

WIDTHS = ("W8A8", "W6A6", "W5A5", "W4A8")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.benchmarks.compare", description="Compare methods on trained networks.")
    parser.add_argument("--models", nargs="+", default=checkpoint_names(), metavar="NAME", help="checkpoints, or .onnx files")
    parser.add_argument("--stress", action="store_true", help="the same networks with the ranges of their channels spread")
    known = [*available_peers(), *METHOD_NAMES]
    parser.add_argument("--methods", nargs="+", default=known, choices=known, metavar="METHOD", help=f"of {', '.join(known)}")
    parser.add_argument("--bits", nargs="+", default=list(WIDTHS), metavar="WxAy")
    parser.add_argument("--data", type=Path, required=True, help="labelled test images, zip or folder")
    parser.add_argument("--calib", type=Path, required=True, help="calibration images, zip or folder")
    parser.add_argument("--samples", type=int, default=Options.samples, help=f"calibration images (default {Options.samples})")
    parser.add_argument("--target", default=Options.target)
    parser.add_argument("--placement", default=Options.placement, help=f"of our own conversions (default {Options.placement})")
    parser.add_argument("--limit", type=int, help="test images, always the same ones (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a column for each (default 0)")
    steps = list(ablation(0))
    parser.add_argument(
        "--ablation", nargs="*", choices=steps, metavar="STEP", help=f"instead of methods, parts of q-hyvit added up: {', '.join(steps)}"
    )
    parser.add_argument("--full", action="store_true", help="softmax, norms and all else quantized too")
    add_worker_flags(parser, jobs=len(os.sched_getaffinity(0)), pieces="cells")
    parser.add_argument("--out", type=Path, required=True, help="folder for results, models and prepared images")
    flags = parser.parse_args(arguments)
    parse_placement(flags.placement)
    for bits in flags.bits:
        BitWidths.parse(bits)
    return flags


_PEER_BITS = "W8A8"
"""The only width that other tools have."""


def _bench(flags: argparse.Namespace, names: Sequence[str], variants: dict[str, Variant]) -> Bench:
    try:
        data = find_images(flags.data)
    except (ValueError, OSError) as error:
        raise UsageError(str(error), where="--data", hint="give a folder or zip of CLASS/NAME.jpg") from error
    if flags.limit:
        data = data.take(flags.limit)
    out = flags.out.resolve()  # a worker may stand in another folder
    folder = out / "models"
    folder.mkdir(parents=True, exist_ok=True)
    sources = {name: prepare_model(name, folder).resolve() for name in names}
    images = prepare_images(list(sources.values()), data, out)
    return Bench(sources, images, data, flags.calib.resolve(), flags.samples, flags.target, variants, folder, flags.placement)


def _measure_all(bench: Bench, cells: Sequence[Cell], workers: Workers, table: Path) -> None:
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("cells", total=len(cells))
        for _, row in as_done(measure, bench, cells, workers, files=_files(bench), name=_name):
            append_row(table, row)
            progress.advance(task)
            console.print(f"{row.model} {row.method} {row.bits} {row.failure or f'{row.top1:.2f} %'}", highlight=False)


def _name(cell: Cell) -> str:
    return " ".join(filter(None, [cell.model, cell.method, cell.bits]))


def _files(bench: Bench) -> list[Path]:
    """What measuring reads."""
    models = [file for path in bench.sources.values() for file in (path, *load(path).external)]
    calib = [path for path in bench.calib.rglob("*") if path.is_file()] if bench.calib.is_dir() else [bench.calib]
    return [*models, *bench.images.values(), *calib]


def _variants(flags: argparse.Namespace) -> dict[str, Variant]:
    if flags.ablation is None:
        return plain(flags.methods, flags.seeds, full=flags.full)
    return {
        f"{step}{seed_ending(s)}": v for s in flags.seeds for step, v in ablation(s).items() if step in flags.ablation or not flags.ablation
    }


def _columns(flags: argparse.Namespace, variants: Mapping[str, Variant]) -> dict[str, list[str]]:
    """The widths that are measured of each variant."""
    return {name: [b for b in flags.bits if v.method not in PEERS or (b == _PEER_BITS and not v.full)] for name, v in variants.items()}


def _run(flags: argparse.Namespace) -> None:
    workers = workers_of(flags)
    names = [f"{n}{STRESSED}" if flags.stress else n for n in flags.models]
    flags.out.mkdir(parents=True, exist_ok=True)
    table = flags.out / "results.csv"
    done = {row.cell for row in read_rows(table, Row) if not row.failure}
    variants = _variants(flags)
    cells = cells_of(names, _columns(flags, variants))
    missing = [c for c in cells if c not in done]
    settings = {f"--{n}": vars(flags)[n] for n in ("target", "placement", "samples", "limit")}
    keep_settings(flags.out, settings | {f"--{n}": vars(flags)[n].name for n in ("data", "calib")})
    bench = _bench(flags, names, variants)
    _measure_all(bench, missing, workers, table)
    rows = [_timed(bench, row, table) for row in _latest(table, cells)]
    text = "\n".join([means(rows), *(matrix(rows, bits) for bits in flags.bits), details(rows)])
    write_files({flags.out / "results.md": text.encode()})
    plot_means(rows, flags.out / "results.svg")
    failed = sum(bool(row.failure) for row in rows)
    print_line(
        f"{means(rows)}\n{len(missing)} cells measured, {len(rows)} in {flags.out}: results.csv, results.md, results.svg"
        + (f"; {failed} failed, results.md says why" if failed else "")
    )


def _latest(table: Path, cells: Sequence[Cell]) -> list[Row]:
    rows = {row.cell: row for row in read_rows(table, Row)}
    return [rows[cell] for cell in cells]


def _timed(bench: Bench, row: Row, table: Path) -> Row:
    if row.method == FLOAT or row.failure or row.latency:
        return row
    timed = measure_latency(bench, row)
    if timed != row:
        append_row(table, timed)
    return timed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(_parse(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
