"""The report as tables, for a terminal or a file."""

from __future__ import annotations

import io
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from converter.budget.records import Budget, told
from converter.emit.file_bytes import FileBytes
from converter.options import Options
from converter.partition.bit_widths import CONTAINER_BITS, width_counts
from converter.partition.policy import FOR_ACCURACY
from converter.plan.records import Plan
from converter.report import Report, size_advice
from converter.targets import other_machines
from converter.transforms.sigmoids.transform import ConstantGates
from converter.verify.integer_coverage import FloatOp
from converter.verify.quality import OutputQuality
from converter.verify.verdict import Verdict

__all__ = ["float_operator_lines", "render", "report_tables"]

Row = Callable[[str, str], None]
"""Adds a row: its name, and what it says."""

_MOST_NAMED = 5
_WORTH_TELLING = 0.1  # seconds of a stage
_MOST_WEIGHTS = 3
_WORTH_NAMING = 0.02  # of a file


def render(table: RenderableType, width: int, *, terminal: bool) -> str:
    """Text of at most ``width`` columns, without trailing blanks; colours and the like only for a terminal."""
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=terminal, highlight=False).print(table)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def report_tables(report: Report) -> RenderableType:
    """The report as a summary, the operators by type, and the largest products that stayed float."""
    blank = Text("")
    parts: list[RenderableType] = [_summary(report), blank, _operators(report)]
    if report.budget is not None and report.budget.points:
        parts += [blank, _curve(report.budget)]
    if report.verdict is not None:
        products = [op for op in report.verdict.integer_coverage.float_ops if op.macs]
        if products:
            parts += [blank, _products(products)]
    warnings = list(report.warnings)
    if report.latency is not None and report.latency.ratio < 1 and report.at_home:
        warnings.append("the int8 model is slower than float on this machine")
    for warning in warnings:
        line = Table.grid(padding=(0, 1))
        line.add_row(Text("warning:", "bold yellow"), Text(warning))
        parts += [blank, line] if warning is warnings[0] else [line]
    return Group(*parts)


def float_operator_lines(report: Report) -> list[str]:
    """All operators that stayed float (on a dry run: shall stay) by name, under a line for each type and reason."""
    planned = [FloatOp(name, op.op_type, 0, op.reason) for name, op in report.plan.ops.items() if op.runs != "integer"]
    ops = report.verdict.integer_coverage.float_ops if report.verdict is not None else planned
    groups: dict[tuple[str, str], list[str]] = {}
    for op in ops:
        name = f"{op.name} ({_count(op.macs)} MACs)" if op.macs else op.name
        groups.setdefault((op.op_type, op.reason.replace(f" for {op.op_type}", "")), []).append(name)
    lines: list[str] = []
    for (op_type, reason), names in groups.items():
        lines += [f"{op_type} in float, {len(names)}: {reason}", *(f"  {name}" for name in names)]
    return lines


def _summary(report: Report) -> Table:
    nowhere = "(dry run: no model written)" if report.verdict is None else "(in memory: no model written)"
    title = Text(f"{report.source} -> {report.output or nowhere}", "bold")
    table = Table(title=title, title_justify="left", title_style="", show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, text: str) -> None:
        table.add_row(Text(name, "bold"), Text(text))

    _result_rows(row, report)
    _plan_rows(row, report)
    _conversion_rows(row, report)
    return table


def _result_rows(row: Row, report: Report) -> None:
    """What the file is like: quality, size, latency."""
    if report.verdict is not None:
        _verdict_rows(row, report.verdict)
    if report.integer_bytes:
        share = report.integer_bytes / report.float_bytes
        row("size", f"{_size(report.float_bytes)} -> {_size(report.integer_bytes)} ({share:.0%})")
    if report.mobile is not None:
        row("mobile", f"{report.mobile.name}, {_size(len(report.mobile.content))}, written by ONNX Runtime {report.mobile.onnxruntime}")
        row("", "the same answers and integer kernels as the model")
    if report.file_bytes is not None:
        _bytes_rows(row, report.file_bytes, size_advice(report))
    if report.latency is not None:
        latency = report.latency
        row("latency", f"float / int8 = {latency.ratio:.2f} ({latency.low:.2f} to {latency.high:.2f}), one thread, run in turns")
        if not report.at_home:
            row("", f"on {platform.machine()}, which the file is not for: measure on {report.target}")
    elif report.not_measured:
        row("latency", report.not_measured)


def _plan_rows(row: Row, report: Report) -> None:
    """How it was planned, and what that is predicted to cost."""
    placed = "" if report.placement == Options.placement else f", placement {report.placement}"
    row("plan", f"{report.method}, {report.bits}, target {report.target}{placed}, seed {report.seed}")
    if report.machines:
        row("made for", f"{report.machines}; for others {_other_targets(report.target)}")
    _sigmoid_rows(row, report.plan)
    fake_quantized = sum(op.runs == "fake-quantized" for op in report.plan.ops.values())
    if fake_quantized:
        row("fake-quantized", f"{fake_quantized} operators read and write codes, but are computed in float by this runtime")
    for place, cost in enumerate(report.costs):
        both = f"{cost.predicted / 1e6:.1f} of {cost.predicted_float / 1e6:.1f} million {cost.unit}"
        on = f"; placement goes by {report.cost_unit}" if place else f" on {report.target}"
        row("" if place else "predicted", f"{both} ({cost.predicted / cost.predicted_float:.2f} of float){on}")
    if report.budget is not None:
        row("budget", told(report.budget))
    given_up = sum(op.reason == FOR_ACCURACY for op in report.plan.ops.values())
    if given_up:
        who = "1 operator" if given_up == 1 else f"{given_up} operators"
        verb = "is" if given_up == 1 else "are"
        row("", f"{who} that would be faster in integer {verb} float for accuracy (--placement balanced:0: none)")
    if report.loss:
        row("judged by", report.loss)
    tensors, weights = width_counts(report.plan)
    if {*tensors, *weights} - {CONTAINER_BITS}:
        row("widths", f"quantized tensors: {_widths(tensors)}; layers' weights: {_widths(weights)}")


def _sigmoid_rows(row: Row, plan: Plan) -> None:
    sigmoids = [op for op in plan.ops.values() if op.op_type == "Sigmoid"]
    approximations = sum(bool(op.coefficients) for op in sigmoids)
    constant_gates = sum(len(t.constant_gates) for t in plan.transforms if isinstance(t, ConstantGates))
    if approximations or constant_gates:
        pairs = ((approximations, "clamped line"), (constant_gates, "constant"))
        kinds = [f"{count} {kind}{'s' if count > 1 else ''}" for count, kind in pairs if count]
        replaced = f"{approximations + constant_gates} of {len(sigmoids) + constant_gates} sigmoids"
        row("sigmoids", f"{' and '.join(kinds)} for {replaced}; hardly moves the scores (--no-piecewise-linear)")


def _conversion_rows(row: Row, report: Report) -> None:
    """What the conversion read and took."""
    row("calibration", report.calibration)
    if report.seconds:
        each = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in report.seconds.items() if seconds >= _WORTH_TELLING)
        row("time", f"{sum(report.seconds.values()):.1f} s{f': {each}' if each else ''}")
    if report.peak_memory:
        row("memory", f"{_size(report.peak_memory)} at most, to convert")
    fired = ", ".join(f"{r.name} {r.count}" for r in report.rewrites if r.count and r.kept)
    if report.requires:
        row("runs in", f"{report.requires}; opset {report.opset[1]}, IR version {report.ir_version}")
    row("rewrites", f"{fired or 'none'}; opset {report.opset[0]} -> {report.opset[1]}; exact to {report.canonical_error:.0e}")


def _bytes_rows(row: Row, found: FileBytes, advice: str) -> None:
    parts = {
        "weights in 8 bits": found.in_8_bits,
        "numbers in float": found.in_float,
        "scales and biases": found.in_others,
        "nodes and names": found.graph,
    }
    row("bytes", ", ".join(f"{what} {_size(size)} ({size / found.total:.0%})" for what, size in parts.items()))
    if found.stored:
        layers = "the weights of 1 layer that is" if found.stored == 1 else f"{found.stored} weights of layers that are"
        row("", f"among those in 8 bits {layers} computed in float (--prefer size)")
    for each in found.largest[:_MOST_WEIGHTS]:
        if each.bytes >= _WORTH_NAMING * found.total:
            row("", f"in float: {_size(each.bytes)} of {each.op_type} {each.operator}{each.reason and f', {each.reason}'}")
    if advice:
        row("", advice)


def _other_targets(name: str) -> str:
    """The flags that other machines need, by the first word of what they are."""
    families: dict[str, list[str]] = {}
    for other, machines in other_machines(name).items():
        families.setdefault(machines.partition(" ")[0], []).append(other)
    return "; ".join(f"--target {' | '.join(names)} ({family})" for family, names in families.items())


def _verdict_rows(row: Row, verdict: Verdict) -> None:
    many = len(verdict.outputs) > 1
    samples = f"{verdict.samples} held-aside sample{'s' if verdict.samples > 1 else ''}"
    for output in verdict.outputs:
        name = f"output {output.name}"
        row(name if len(name) <= 24 else "output", f"{'' if len(name) <= 24 else f'{output.name}: '}{_quality(output)}")
        for group in output.groups:
            shown = "no value" if group.sqnr_db is None else f"{group.sqnr_db:.1f} dB SQNR"
            row("", f"channels {group.start}..{group.stop - 1}: {shown}{f', all {group.collapsed}' if group.collapsed else ''}")
    if verdict.outputs:
        row("", f"against float, {'each ' if many else ''}on {samples}")
    integer_coverage = verdict.integer_coverage
    row("integer", f"{integer_coverage.coverage:.1%} of {_count(integer_coverage.total_macs)} multiply-accumulates (runtime's profile)")
    equal = [] if verdict.parity_agreement is None else [f"{verdict.parity_agreement:.1%} of integers equal"]
    close = [] if verdict.parity_db is None else [f"{verdict.parity_db:.0f} dB"]
    row("parity", f"{', '.join([*close, *equal]) or 'no value to compare'} against {verdict.parity_reference}")


def _quality(output: OutputQuality) -> str:
    parts = [] if output.sqnr_db is None else [f"{output.sqnr_db:.1f} dB SQNR"]
    if output.agreement is not None:
        parts.append(f"{output.agreement:.1%} of integers equal" if output.sqnr_db is None else f"top-1 agreement {output.agreement:.1%}")
    if output.rows_matched:
        parts.append("rows matched" if not output.rows_unmatched else f"rows matched, {output.rows_unmatched} without a partner")
    return ", ".join(parts if output.sqnr_db is not None or output.agreement is not None else ["no value on any sample", *parts])


def _operators(report: Report) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True, padding=(0, 2, 0, 0))
    table.add_column("operators")
    table.add_column("integer", justify="right")
    table.add_column("float", justify="right")
    table.add_column("why float", overflow="fold")
    total: Counter[str] = Counter()
    integer: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {}
    unfused = {f.name: f.reason for f in report.verdict.integer_coverage.float_ops if f.macs} if report.verdict is not None else {}
    for name, op in report.plan.ops.items():
        total[op.op_type] += 1
        if op.runs == "integer" and name not in unfused:
            integer[op.op_type] += 1
        else:
            reason = (op.reason or unfused.get(name, "")).replace(f" for {op.op_type}", "")
            reasons.setdefault(op.op_type, Counter())[reason] += 1
    for op_type, count in total.most_common():
        why = "; ".join(reason for reason, _ in reasons.get(op_type, Counter()).most_common(2))
        table.add_row(op_type, str(integer[op_type]), str(count - integer[op_type]), Text(why))
    return table


def _curve(budget: Budget) -> Table:
    """Measured points of the search, the cheapest first."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("cost of float", "drop", "score", "integer", "placement"):
        table.add_column(title, justify="left" if title == "placement" else "right", no_wrap=title != "placement")
    for place, point in enumerate(budget.points):
        if point.score is None or point.drop is None:
            continue
        chosen = place == budget.chosen
        label = f"{point.label}{' <- chosen' if chosen else ''}"
        cells = (f"{point.cost:.3f}", f"{point.drop:.4g}", f"{point.score:.4g}", str(point.integer), label)
        table.add_row(*cells, style="bold" if chosen else "")
    return table


def _products(products: Sequence[FloatOp]) -> Table:
    """The largest products in float, by name."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("products in float", overflow="fold")
    table.add_column("MACs", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for op in products[:_MOST_NAMED]:
        table.add_row(Text(op.name), _count(op.macs), Text(op.reason))
    if len(products) > _MOST_NAMED:
        table.add_row(Text(f"and {len(products) - _MOST_NAMED} more: see them with -v"), "", "")
    return table


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.1f} k" if number >= 1e3 else str(number)


def _widths(counts: Mapping[int, int]) -> str:
    return ", ".join(f"{count} in {bits} bits" for bits, count in counts.items()) or "none"


def _size(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
