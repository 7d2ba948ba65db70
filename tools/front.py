"""The accuracy/latency front: ``python -m tools.front FLOAT.onnx --out FOLDER`` converts at several prices of accuracy.

Writes ``front.csv`` and ``front.svg``: signal to quantization noise on held-aside samples against the cost that the target's
prices predict, as a share of the float model's.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from converter.cli.command import Parser, exit_code, print_line
from converter.errors import UsageError
from converter.load.files import write_files
from converter.options import Options
from converter.pipeline import convert
from converter.report import Report

__all__ = ["Point", "csv_text", "main", "on_front", "svg_text"]

_PRICES = (0.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
_WIDTH, _HEIGHT, _MARGIN = 640, 400, 60
_TICKS = 5


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


def svg_text(points: Sequence[Point], title: str) -> str:
    """A picture: cost to the right, decibels up, the front as a line, every point with its placement."""
    x = _axis([p.cost for p in points])
    y = _axis([p.sqnr_db for p in points])

    def place(cost: float, decibels: float) -> tuple[float, float]:
        across = _MARGIN + (cost - x[0]) / (x[1] - x[0]) * (_WIDTH - 2 * _MARGIN)
        return across, _HEIGHT - _MARGIN - (decibels - y[0]) / (y[1] - y[0]) * (_HEIGHT - 2 * _MARGIN)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_WIDTH / 2}" y="24" text-anchor="middle" font-size="14">{escape(title)}</text>',
    ]
    for step in range(_TICKS):
        cost, decibels = (low + (high - low) * step / (_TICKS - 1) for low, high in (x, y))
        across, up = place(cost, decibels)
        lines.append(f'<line x1="{across:.1f}" y1="{_MARGIN}" x2="{across:.1f}" y2="{_HEIGHT - _MARGIN}" stroke="#ddd"/>')
        lines.append(f'<line x1="{_MARGIN}" y1="{up:.1f}" x2="{_WIDTH - _MARGIN}" y2="{up:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{across:.1f}" y="{_HEIGHT - _MARGIN + 16}" text-anchor="middle">{cost:.3f}</text>')
        lines.append(f'<text x="{_MARGIN - 6}" y="{up + 4:.1f}" text-anchor="end">{decibels:.1f}</text>')
    path = " ".join(f"{a:.1f},{u:.1f}" for a, u in (place(p.cost, p.sqnr_db) for p in on_front(points)))
    lines.append(f'<polyline points="{path}" fill="none" stroke="#1a6" stroke-width="2"/>')
    for p in points:
        across, up = place(p.cost, p.sqnr_db)
        lines.append(f'<circle cx="{across:.1f}" cy="{up:.1f}" r="4" fill="{"#1a6" if p in on_front(points) else "#999"}"/>')
        lines.append(f'<text x="{across + 6:.1f}" y="{up - 6:.1f}">{escape(p.placement)}</text>')
    across, up = _WIDTH / 2, _HEIGHT - 14
    lines.append(f'<text x="{across}" y="{up}" text-anchor="middle">predicted cost, of float</text>')
    lines.append(f'<text x="16" y="{_HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 16 {_HEIGHT / 2})">SQNR, dB</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _axis(values: Sequence[float]) -> tuple[float, float]:
    """Ends a little beyond all values, and apart."""
    low, high = min(values), max(values)
    beyond = 0.08 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - beyond, high + beyond


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert, print and write; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.front", description="Accuracy against predicted latency, at several prices of accuracy.")
    add = parser.add_argument
    add("model", type=Path, metavar="FLOAT.onnx")
    add(
        "--out",
        type=Path,
        default=Path("build/front"),
        metavar="FOLDER",
        help="of front.csv, front.svg and the models (default build/front)",
    )
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
    wanted = [
        Options(calib=flags.calib, samples=flags.samples, target=flags.target, method=flags.method, placement=placement)
        for placement in placements
    ]
    points = []
    for options in wanted:
        sys.stderr.write(f"{options.placement}\n")
        made = flags.out / f"{flags.model.stem}_{options.placement.replace(':', '_')}.onnx"
        points.append(point_of(convert(flags.model, made, options)))
    text = csv_text(points)
    write_files({(flags.out / "front.csv").absolute(): text.encode()})
    title = f"{flags.model.stem}, {wanted[0].method}, {flags.target}"
    write_files({(flags.out / "front.svg").absolute(): svg_text(points, title).encode()})
    print_line(text.rstrip())


if __name__ == "__main__":
    raise SystemExit(main())
