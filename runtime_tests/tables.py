"""The results as one compact table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runtime_tests.check_results import CheckResult
from runtime_tests.processes import Predictions
from runtime_tests.results import Results

__all__ = ["results_table"]


def results_table(results: Results, check_results: Sequence[CheckResult]) -> RenderableType:
    """A row for each thing that was measured, then the gates, then what was not measured."""
    table = Table(title=f"{results.models['int8']['file']} against {results.models['float']['file']}", title_justify="left")
    for heading in ("", "float", "int8", ""):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for row in _rows(results):
        table.add_row(*(Text(cell) for cell in row))
    lines: list[RenderableType] = [table]
    for result in check_results:
        if result.failure:
            lines.append(Text(f"{result.kind} {result.name}: failed, {result.failure}", "bold red"))
        elif result.kind == "gate":
            lines.append(Text(f"gate {result.name}: kept, {result.detail}"))
    lines += [Text(f"not measured: {o.name}, {o.skipped}") for o in check_results if o.skipped]
    return Group(*lines)


def _rows(results: Results) -> Iterator[tuple[str, str, str, str]]:
    if results.accuracy is not None:
        a = results.accuracy
        yield "top-1", f"{a.float_top1:.2f} %", f"{a.int8_top1:.2f} %", f"drop {a.drop:.2f} points, {a.images} images"
    close = results.closeness
    if close.agreement is not None:
        yield "predictions as float's", "", f"{close.agreement:.2f} %", f"{close.samples} samples"
    yield "SQNR", "", f"{close.sqnr_db:.1f} dB", close.source
    floats = results.coverage.in_float
    note = f"{len(floats)} products in float, the largest is {floats[0].name}" if floats else "no product in float"
    if results.coverage.uncounted:
        note += f"; not counted: {', '.join(results.coverage.uncounted)}"
    yield "integer coverage", "", f"{results.coverage.percent:.2f} %", note
    yield "parity", "", f"{results.parity.db:.1f} dB", f"with {results.parity.reference}; 200 dB is equality"
    narrow = results.confinement
    watched = narrow.activations + narrow.weights
    yield "codes within their grids", "", *_reduced_range(watched, len(narrow.escapes))
    yield from _costs(results)
    for found in (*results.cores, *([results.version] if results.version is not None else [])):
        yield _elsewhere(found)


def _reduced_range(watched: int, escaped: int) -> tuple[str, str]:
    return (
        (f"{watched - escaped} of {watched}", "narrow tensors, also with inputs far out of range") if watched else ("", "all have 8 bits")
    )


def _costs(results: Results) -> Iterator[tuple[str, str, str, str]]:
    m = results.memory
    yield "file", f"{m.float_size / 1e6:.2f} MB", f"{m.int8_size / 1e6:.2f} MB", ""
    yield "peak memory", f"{m.float_peak / 1e6:.1f} MB", f"{m.int8_peak / 1e6:.1f} MB", f"without a model {m.process / 1e6:.1f} MB"
    latency = results.latency
    note = f"float time over int8 time here, {latency.low:.2f} to {latency.high:.2f}"
    if results.models["int8"]["elsewhere"]:
        note += f"; made for {results.models['int8']['target']}"
    yield "speed", "1", f"{latency.ratio:.2f}", note
    for c in results.instructions:
        yield f"instructions, {c.core}", f"{c.float_count / 1e6:.3f} M", f"{c.int8_count / 1e6:.3f} M", f"ratio {c.ratio:.3f}"


def _elsewhere(found: Predictions) -> tuple[str, str, str, str]:
    share = f"{found.equal} of {found.predictions}" if found.predictions else "no scores"
    return f"same on {found.other}", "", share, f"as on {found.reference}; outputs differ by {found.largest:.1e} of the largest"
