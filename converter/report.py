"""Report: what a conversion did and found, as one record, as JSON and as tables."""

from __future__ import annotations

import json
import platform
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from converter.canonicalise import Rewrite
from converter.latency import LatencyRatio
from converter.plan import Plan
from converter.verify import Verdict

__all__ = ["LOW_SQNR_DB", "Report", "report_json", "report_tables"]

LOW_SQNR_DB = 15.0
"""An output below this gets a warning."""

_MOST_FLOAT_OPS = 6


@dataclass(frozen=True)
class Report:
    """Everything worth knowing about one conversion.

    Attributes:
        source: file name of the input.
        output: file name of the result, an empty string on a dry run.
        version: of this tool.
        method: that chose the grids.
        bits: for example ``W8A8``.
        target: name of the target.
        calibration: a sentence on the samples.
        calibration_digest: sha256 of the samples.
        seed: of all random choices.
        opset: (of the input, of the output).
        rewrites: what canonicalisation did.
        canonical_error: largest relative difference it left.
        plan: the plan.
        verdict: None on a dry run.
        float_bytes: size of the input.
        integer_bytes: size of the result.
        latency: None on a dry run.
        warnings: sentences.
    """

    source: str
    output: str
    version: str
    method: str
    bits: str
    target: str
    calibration: str
    calibration_digest: str
    seed: int
    opset: tuple[int, int]
    rewrites: tuple[Rewrite, ...]
    canonical_error: float
    plan: Plan
    verdict: Verdict | None
    float_bytes: int
    integer_bytes: int
    latency: LatencyRatio | None
    warnings: tuple[str, ...]


def report_json(report: Report) -> str:
    """The report as JSON; grids are left to ``--plan-out``."""
    record: dict[str, Any] = {
        k: v for k, v in vars(report).items() if k not in ("plan", "verdict", "latency", "rewrites", "warnings", "opset")
    }
    record["opset"] = list(report.opset)
    record["rewrites"] = [asdict(r) for r in report.rewrites]
    record["operators"] = {name: {"op_type": op.op_type, "runs": op.runs, "reason": op.reason} for name, op in report.plan.ops.items()}
    if report.verdict is not None:
        census = report.verdict.census
        record["outputs"] = [asdict(o) for o in report.verdict.outputs]
        record["parity_db"] = report.verdict.parity_db
        record["parity_reference"] = report.verdict.parity_reference
        record["held_aside_samples"] = report.verdict.samples
        record["integer_coverage"] = census.coverage
        record["integer_macs"], record["total_macs"] = census.integer_macs, census.total_macs
        record["kernels"] = census.kernels
        record["float_operators"] = [asdict(f) for f in census.float_ops]
    record["latency_ratio"] = None if report.latency is None else {**asdict(report.latency), "machine": platform.machine()}
    record["warnings"] = list(report.warnings)
    return json.dumps(record, indent=1) + "\n"


def report_tables(report: Report) -> RenderableType:
    """The report for a terminal."""
    parts: list[RenderableType] = [_summary(report), _operators(report)]
    parts += [Text.assemble(("warning: ", "bold yellow"), w) for w in report.warnings]
    return Group(*parts)


def _summary(report: Report) -> Table:
    table = Table(title=f"{report.source} → {report.output or '(dry run)'}", title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("plan", f"{report.method}, {report.bits}, target {report.target}, seed {report.seed}")
    table.add_row("calibration", report.calibration)
    fired = ", ".join(f"{r.name} {r.count}" for r in report.rewrites if r.count and r.kept)
    table.add_row("rewrites", f"{fired or 'none'}; opset {report.opset[0]} → {report.opset[1]}; exact to {report.canonical_error:.0e}")
    if report.verdict is not None:
        _verdict_rows(table, report.verdict)
    if report.integer_bytes:
        share = report.integer_bytes / report.float_bytes
        table.add_row("size", f"{_megabytes(report.float_bytes)} → {_megabytes(report.integer_bytes)} ({share:.0%})")
    if report.latency is not None:
        machine = platform.machine()
        home = {"arm64": ("aarch64", "arm64"), "x86": ("x86_64", "AMD64")}.get(report.target, (machine,))
        note = "" if machine in home else f"; this machine is {machine}, the file is for {report.target}: measure there"
        latency = report.latency
        table.add_row("latency", f"float / int8 = {latency.ratio:.2f} ({latency.low:.2f} to {latency.high:.2f}, one thread{note})")
    return table


def _verdict_rows(table: Table, verdict: Verdict) -> None:
    for output in verdict.outputs:
        agreement = "" if output.agreement is None else f", top-1 agreement {output.agreement:.1%}"
        table.add_row("output", f"{output.name}: {output.sqnr_db:.1f} dB SQNR{agreement} (against float, {verdict.samples} held-aside samples)")
    table.add_row("parity", f"{verdict.parity_db:.0f} dB against {verdict.parity_reference}")
    census = verdict.census
    table.add_row(
        "integer coverage",
        f"{census.coverage:.1%} of {census.total_macs / 1e6:.1f} M multiply-accumulates run in integer kernels (from the runtime's own profile)",
    )


def _operators(report: Report) -> Table:
    table = Table(title="operators by type", title_justify="left", box=None, header_style="bold")
    table.add_column("operator")
    table.add_column("integer", justify="right")
    table.add_column("float", justify="right")
    table.add_column("why float", overflow="fold")
    total: Counter[str] = Counter()
    integer: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {}
    unfused = {f.name: f.reason for f in report.verdict.census.float_ops if f.macs} if report.verdict is not None else {}
    for name, op in report.plan.ops.items():
        total[op.op_type] += 1
        if op.runs == "integer" and name not in unfused:
            integer[op.op_type] += 1
        else:
            reasons.setdefault(op.op_type, Counter())[op.reason or unfused.get(name, "")] += 1
    for op_type, count in total.most_common():
        why = "; ".join(reason for reason, _ in reasons.get(op_type, Counter()).most_common(2))
        table.add_row(op_type, str(integer[op_type]), str(count - integer[op_type]), why)
    return table


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
