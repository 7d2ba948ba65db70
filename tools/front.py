"""The accuracy/latency front: ``python -m tools.front FLOAT.onnx --out FOLDER`` converts at several prices of accuracy.

Writes ``front.csv`` and ``front.svg``: signal to quantization noise on held-aside samples against the cost that the target's
prices predict, as a share of the float model's.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from converter.cli.command import Parser, exit_code, print_line
from converter.errors import UsageError
from converter.load.files import write_files
from converter.options import Options
from converter.pipeline import convert
from converter.report import Report

__all__ = ["Point", "csv_text", "main", "on_front", "picture"]

_PRICES = (0.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)


@dataclass(frozen=True)
class Point:
    """One placement.

    Attributes:
        placement: as given to the conversion.
        cost: predicted, as a share of the float model's.
        sqnr_db: lowest of the outputs'.
        agreement: lowest of the outputs'; None where they are no class scores.
        integer: operators that run in integer, as planned.
    """

    placement: str
    cost: float
    sqnr_db: float
    agreement: float | None
    integer: int


def on_front(points: Sequence[Point]) -> list[Point]:
    """Those than which none is both cheaper and closer to float, the cheapest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.sqnr_db)):
        if not found or point.sqnr_db > found[-1].sqnr_db:
            found.append(point)
    return found


def point_of(report: Report) -> Point:
    """What a conversion reports."""
    assert report.verdict is not None
    outputs = report.verdict.outputs
    agreements = [o.agreement for o in outputs if o.agreement is not None]
    return Point(
        report.placement,
        report.predicted / report.predicted_float,
        min(o.sqnr_db for o in outputs if o.sqnr_db is not None),
        min(agreements) if agreements else None,
        sum(op.runs == "integer" for op in report.plan.ops.values()),
    )


def csv_text(points: Sequence[Point]) -> str:
    """A line for each point, with headings."""
    front = on_front(points)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["placement", "cost_of_float", "sqnr_db", "agreement", "integer_operators", "on_front"])
    for p in points:
        agreement = "" if p.agreement is None else f"{p.agreement:.4f}"
        writer.writerow([p.placement, f"{p.cost:.4f}", f"{p.sqnr_db:.2f}", agreement, p.integer, int(p in front)])
    return stream.getvalue()


def picture(points: Sequence[Point], title: str) -> Figure:
    """Cost to the right, decibels up, the front as a line, every point with its placement."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    front = on_front(points)
    axes.plot([p.cost for p in front], [p.sqnr_db for p in front])
    axes.scatter([p.cost for p in points], [p.sqnr_db for p in points], c=["C0" if p in front else "grey" for p in points], zorder=2)
    for p in points:
        axes.annotate(p.placement, (p.cost, p.sqnr_db), xytext=(6, 6), textcoords="offset points")
    axes.margins(0.1)
    axes.grid(linewidth=0.3)
    axes.set(title=title, xlabel="predicted cost, of float", ylabel="SQNR, dB")
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert, print and write; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.front", description="Accuracy against predicted latency, at several prices of accuracy.")
    add = parser.add_argument
    add("model", type=Path, metavar="FLOAT.onnx")
    add("--out", type=Path, default=Path("build/front"), metavar="FOLDER", help="of front.csv, front.svg, models (default build/front)")
    add("--prices", type=float, nargs="+", default=_PRICES, metavar="PRICE", help=f"default {' '.join(map(str, _PRICES))}")
    add("--calib", type=Path, metavar="PATH", help="images (default: built-in synthetic ones)")
    add("--samples", type=int, default=Options.samples, metavar="N")
    add("--target", default=Options.target, metavar="NAME")
    add("--method", default=Options.method, metavar="NAME", help="one that knows what grids add to the loss, as the default does")
    flags = parser.parse_args(arguments)
    try:
        flags.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder: {error.strerror}", where=str(flags.out), hint="choose another") from None
    placements = ["all", "latency", *(f"balanced:{price:g}" for price in flags.prices)]
    common = Options(calib=flags.calib, samples=flags.samples, target=flags.target, method=flags.method)
    wanted = [replace(common, placement=placement) for placement in placements]
    points = []
    for options in wanted:
        sys.stderr.write(f"{options.placement}\n")
        made = flags.out / f"{flags.model.stem}_{options.placement.replace(':', '_')}.onnx"
        points.append(point_of(convert(flags.model, made, options)))
    text = csv_text(points)
    write_files({flags.out / "front.csv": text.encode()})
    with matplotlib.rc_context({"svg.hashsalt": "bridgequant"}):
        title = f"{flags.model.stem}, {flags.method}, {flags.target}"
        picture(points, title).savefig(flags.out / "front.svg", metadata={"Date": None})
    print_line(text.rstrip())


if __name__ == "__main__":
    raise SystemExit(main())
