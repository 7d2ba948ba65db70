"""The demo: convert a real text-line recogniser to int8 and read lines with known text: ``python -m tools.demo``.

The float model comes inside a wheel on the package index; the images are rendered here. Thirty-two lines calibrate,
three hundred others are read by the float model and by int8 models for two targets.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console
from rich.progress import track
from rich.table import Table

from converter.cli.terminal import watch
from converter.options import Options
from converter.pipeline import convert
from converter.report import Report, report_json
from converter.runtime.latency import latency_ratio
from converter.runtime.session import open_session, run_session
from converter.targets import TARGETS
from tools.demo.recogniser import alphabet, character_accuracy, exact_lines, fetch_model, greedy_decode
from tools.demo.text_lines import CALIBRATION_SEED, TEST_SEED, TextLine, pixels, render_lines

__all__ = ["main"]

_TARGETS = ("arm64", "x86")


@dataclass(frozen=True)
class _Reading:
    """How one model read the test lines, and how fast against float."""

    name: str
    file: Path
    exact: float
    characters: float
    latency: str


def _write_calibration(path: Path, lines: Sequence[TextLine]) -> Path:
    np.savez(path, x=np.stack([pixels(line) for line in lines]))
    return path


def _read(model: Path, lines: Sequence[TextLine], settings: dict[str, str], name: str) -> list[str]:
    session = open_session(model, settings=settings)
    characters = alphabet(model)
    texts: list[str] = []
    console = Console(stderr=True)
    for line in track(lines, description=f"read with {name}", console=console, disable=not console.is_terminal, transient=True):
        (probabilities,) = run_session(session, {"x": pixels(line)[None]}).values()
        texts += greedy_decode(probabilities, characters)
    return texts


def _latency(float_model: Path, model: Path, lines: Sequence[TextLine]) -> str:
    result = latency_ratio(onnx.load(float_model), onnx.load(model), {"x": pixels(lines[0])[None]})
    return f"{result.ratio:.2f} ({result.low:.2f} to {result.high:.2f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description="Convert a real text-line recogniser and compare.")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for models and reports (default build/demo)")
    parser.add_argument("--lines", type=int, default=300, help="test lines (default 300)")
    flags = parser.parse_args(arguments)
    flags.out.mkdir(parents=True, exist_ok=True)
    float_model = fetch_model(flags.out)
    calib = _write_calibration(flags.out / "calibration.npz", render_lines(40, CALIBRATION_SEED))
    lines = render_lines(flags.lines, TEST_SEED)
    truths = [line.text for line in lines]
    readings = []
    texts = _read(float_model, lines, {}, "float")
    readings.append(_Reading("float", float_model, exact_lines(truths, texts), character_accuracy(truths, texts), "1"))
    reports: list[tuple[Path, Report]] = []
    for target in (TARGETS[name] for name in _TARGETS):
        model = flags.out / f"recogniser_int8_{target.name}.onnx"
        with watch(quiet=not sys.stderr.isatty()) as progress:
            report = convert(float_model, model, Options(calib=calib, target=target.name), progress=progress)
        path = flags.out / f"report_{target.name}.json"
        path.write_text(report_json(report))
        reports.append((path, report))
        settings = dict(target.session_settings.get(platform.machine(), {}))
        texts = _read(model, lines, settings, f"int8 {target.name}")
        # settings that imitate another machine's kernels are right for accuracy and meaningless for speed
        latency = "measure on the device" if settings else _latency(float_model, model, lines)
        readings.append(_Reading(f"int8 {target.name}", model, exact_lines(truths, texts), character_accuracy(truths, texts), latency))
    _print(readings, reports, len(lines))
    return 0


def _print(readings: Sequence[_Reading], reports: Sequence[tuple[Path, Report]], count: int) -> None:
    console = Console(width=None if sys.stdout.isatty() else 110)
    table = Table(title=f"text-line recogniser, {count} lines; calibrated on 32 others", title_justify="left")
    for heading in ("model", "exact lines", "characters", "size", f"float time / its time on this {platform.machine()}"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for reading in readings:
        size = f"{reading.file.stat().st_size / 1e6:.2f} MB"
        table.add_row(reading.name, f"{reading.exact:.2f} %", f"{reading.characters:.2f} %", size, reading.latency)
    console.print(table)
    for path, report in reports:
        assert report.verdict is not None
        console.print(f"{report.target}: integer coverage {report.verdict.integer_coverage.coverage:.1%}; report: {path}", highlight=False)


if __name__ == "__main__":
    raise SystemExit(main())
