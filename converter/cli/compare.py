"""``bridgequant compare A B``: two plans, two int8 models, or a model and its float original."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converter.cli.command import Parser, exit_code, print_line
from converter.cli.terminal import watch
from converter.load.files import check_outputs, write_files
from converter.options import Options

if TYPE_CHECKING:
    from converter.compare.records import Comparison, Side

__all__ = ["main"]


def main(words: Sequence[str], *, prog: str = "bridgequant compare") -> int:
    """Run the command; returns the exit code."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return exit_code(lambda: _run(words, prog))


def _parser(prog: str) -> Parser:
    parser = Parser(
        prog=prog,
        description="Compare two plans (.json), two int8 models, or a model and its float original, tensor by tensor.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("first", metavar="A", type=Path, help="plan or model")
    add("second", metavar="B", type=Path, help="plan or int8 model, which is looked at tensor by tensor")
    add("--model", type=Path, metavar="FLOAT.onnx", help="the float model, if neither A nor B is it")
    add("--report", type=Path, metavar="FILE.html", help="write the comparison as a page for a browser")
    add("--json", metavar="FILE", help="write every figure as JSON; - is stdout")
    add("--calib", type=Path, metavar="PATH", help="as for a conversion (default: built-in synthetic samples)")
    add(
        "--samples",
        type=int,
        metavar="N",
        default=Options.samples,
        help=f"how many calibrate (default: {Options.samples})",
    )
    add("--preprocess", metavar="SPEC", help="of images, as for a conversion")
    add("--input-shape", metavar="NAME:DIMS", action="append", default=[], help="size of an open input; repeatable")
    add("--target", metavar="NAME", default=Options.target, help=f"whose prices count for models (default: {Options.target})")
    add("--seed", type=int, metavar="N", default=Options.seed, help="of the choice of samples")
    add("--threads", type=int, metavar="N", default=Options.threads, help="of the runtime; 0 lets it choose")
    add("-q", "--quiet", action="store_true", help="no progress and no table")
    return parser


def _run(words: Sequence[str], prog: str) -> None:
    flags = _parser(prog).parse_args(words)
    json_path = None if flags.json in (None, "-") else Path(flags.json)
    written = {role: path for role, path in (("--report", flags.report), ("--json", json_path)) if path is not None}
    read = {
        role: path for role, path in (("A", flags.first), ("B", flags.second), ("--model", flags.model), ("--calib", flags.calib)) if path
    }
    check_outputs(written, read)
    with watch(quiet=flags.quiet) as progress:
        progress.stage("start")
        options = _options(flags)
        from converter.compare.measure import compare
        from converter.compare.page import comparison_page
        from converter.compare.records import comparison_record
        from converter.report import finite

        found = compare(flags.first, flags.second, options, floats=flags.model, progress=progress)
    text = json.dumps(finite(comparison_record(found)), indent=1, allow_nan=False) + "\n"
    contents = {} if flags.report is None else {flags.report: comparison_page(found).encode()}
    if json_path is not None:
        contents[json_path] = text.encode()
    write_files(contents)
    if flags.json == "-":
        print_line(text.rstrip("\n"))
    elif not flags.quiet:
        for line in _lines(found):
            print_line(line)


def _options(flags: argparse.Namespace) -> Options:
    from converter.calibration.input_shapes import parse_input_shapes
    from converter.calibration.preprocess import parse_preprocess

    return Options(
        calib=flags.calib,
        samples=flags.samples,
        preprocess=None if flags.preprocess is None else parse_preprocess(flags.preprocess),
        input_shapes=parse_input_shapes(flags.input_shape),
        target=flags.target,
        seed=flags.seed,
        threads=flags.threads,
    )


def _lines(found: Comparison) -> list[str]:
    """The comparison as text."""
    sides = (found.first, found.second)
    rows = [
        ["", *(side.name for side in sides)],
        ["size", *("" if side.bytes is None else f"{side.bytes / 1e6:.2f} MB" for side in sides)],
        *([f"predicted million {unit}", *("" if cost is None else f"{cost / 1e6:.1f}" for cost in both)] for unit, *both in found.costs),
        ["integer", *(f"{side.coverage:.1%}" for side in sides)],
        *([f"output {o.name}", *(_decibels(side, o.name) for side in sides)] for o in found.second.outputs),
    ]
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    told = [row for row in rows if any(row[1:])]
    return [*(f"{a.ljust(wide[0])}  {b.rjust(wide[1])}  {c.rjust(wide[2])}".rstrip() for a, b, c in told), "", found.next]


def _decibels(side: Side, name: str) -> str:
    db = next((o.sqnr_db for o in side.outputs if o.name == name), None)
    return "" if db is None else "exact" if db >= 200.0 else f"{db:.1f} dB"
