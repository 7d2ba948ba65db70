"""One row of the zoo: a network through export, conversion and the stock tool, each in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tools.benchmarks.tree import described_tree
from tools.benchmarks.zoo.export import BATCHES
from tools.benchmarks.zoo.networks import ALL_FOUR, COMBINATIONS, NETWORKS, Entry, How
from tools.processes import Ended, run_limited

__all__ = ["Row", "Run", "markdown", "measure_named", "measure_row", "wanted"]

_ROOT = Path(__file__).parents[3]
_EXPORT_SECONDS, _JUDGE_SECONDS = 600.0, 900.0
_LEAST_PARITY_DB = 45.0


@dataclass(frozen=True)
class Row:
    """One network, exported in one way.

    Attributes:
        network: name.
        exporter: ``torchscript`` or ``dynamo``.
        batch: ``1`` or ``open``.
        exit: code of ``convert.py``; a signal's name, ``time`` or, where there was nothing to convert, ``export``.
        sqnr_db: lowest of the outputs, on held-aside samples.
        stock_db: the same of ONNX Runtime's static quantization.
        parity_db: emitted model against the simulation of its plan.
        coverage: percent of multiply-accumulates that ran in integer.
        ratio: predicted cost of int8 over that of float.
        blocks: bridge blocks found.
        layers: layers found.
        layers_in_blocks: those of them inside blocks.
        seconds: of the conversion.
        megabytes: of memory it held at most.
        tree: of this project, as git describes it.
        reason: what is wrong; empty if nothing is.
    """

    network: str
    exporter: str
    batch: str
    exit: str = ""
    sqnr_db: float | None = None
    stock_db: float | None = None
    parity_db: float | None = None
    coverage: float | None = None
    ratio: float | None = None
    blocks: float | None = None
    layers: float | None = None
    layers_in_blocks: float | None = None
    seconds: float | None = None
    megabytes: float | None = None
    tree: str = ""
    reason: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What was measured."""
        return self.network, self.exporter, self.batch


@dataclass(frozen=True)
class Run:
    """What all rows share.

    Attributes:
        folder: for models.
        calib: images, or None for the built-in ones.
        samples: how many calibrate.
        seconds: that a conversion may take.
        megabytes: that any step may hold.
        tree: of this project, as git describes it.
        flags: further ones of the conversion; none for the table.
    """

    folder: Path
    calib: Path | None
    samples: int
    seconds: float
    megabytes: float
    tree: str = field(default_factory=described_tree)
    flags: tuple[str, ...] = ()


def wanted(entries: Sequence[Entry], pattern: str, exporters: Sequence[str]) -> list[tuple[Entry, How]]:
    """Networks whose name holds the pattern, each in its own way to export or, a few, in all four, of these exporters."""
    found = []
    for entry in entries:
        if pattern in entry.name:
            found += [(entry, how) for how in (COMBINATIONS if entry.name in ALL_FOUR else (entry.how,)) if how.exporter in exporters]
    return found


def measure_named(run: Run, piece: tuple[str, How]) -> Row:
    """The row of a network that is given by its name, as those that build networks do not travel between processes."""
    name, how = piece
    return measure_row(run, next(entry for entry in NETWORKS if entry.name == name), how)


def measure_row(run: Run, entry: Entry, how: How) -> Row:
    """Export, convert by default and judge; whatever goes wrong is a row that says so."""
    row = Row(entry.name, how.exporter, BATCHES[how.open_batch], tree=run.tree)
    run.folder.mkdir(parents=True, exist_ok=True)  # it may not be there on another machine
    stem = "_".join(row.key).replace(" ", "_")
    source, converted, report = (run.folder / f"{stem}{ending}" for ending in (".onnx", "_int8.onnx", ".json"))
    for path in (source, converted, report):
        path.unlink(missing_ok=True)
    exported = _python(run, "-m", "tools.benchmarks.zoo.export", *row.key, str(source), seconds=_EXPORT_SECONDS)
    if exported.code != 0:
        return replace(row, exit="export", reason=exported.complaint)
    calib = [] if run.calib is None else ["--calib", str(run.calib)]
    same = [*calib, "--samples", str(run.samples)]
    done = _python(run, "-m", "converter", str(source), str(converted), "--json", str(report), *same, *run.flags, seconds=run.seconds)
    row = _converted(row, done, report)
    judged = _python(run, "-m", "tools.benchmarks.zoo.judge", str(source), str(converted), *same, seconds=_JUDGE_SECONDS)
    return _judged(row, judged)


def _python(run: Run, *words: str, seconds: float) -> Ended:
    return run_limited([sys.executable, *words], seconds=seconds, megabytes=run.megabytes, environment={"PYTHONPATH": _path()})


def _path() -> str:
    return ":".join([str(_ROOT), *(p for p in sys.path if p)])


def _converted(row: Row, done: Ended, report: Path) -> Row:
    code = "time" if done.code is None else done.complaint if done.code < 0 else str(done.code)
    row = replace(row, exit=code, seconds=done.seconds, megabytes=done.megabytes, reason=done.complaint)
    if done.code != 0:
        return row
    record = json.loads(report.read_text())
    coverage, ratio = 100.0 * record["integer_coverage"], record["predicted"] / record["predicted_float"]
    return replace(row, parity_db=record["parity_db"], coverage=coverage, ratio=ratio)


def _judged(row: Row, judged: Ended) -> Row:
    if judged.code != 0:
        return replace(row, reason="; ".join(filter(None, [row.reason, f"judging: {judged.complaint}"])))
    found = json.loads(judged.out)
    failure = found.pop("stock_failure")
    moved = found.pop("moved_db")
    row = replace(row, **found)
    reasons = [row.reason, f"stock tool: {failure}" if failure else ""]
    if row.parity_db is not None and row.parity_db < _LEAST_PARITY_DB:
        reasons.append(f"parity: {_chaos(moved, row.parity_db) or 'the runtime computes something else'}")
    if row.sqnr_db is not None and row.stock_db is not None and row.sqnr_db < row.stock_db:
        reasons.append(": ".join(filter(None, ["behind the stock tool", _chaos(moved, row.stock_db)])))
    return replace(row, reason="; ".join(filter(None, reasons))[:300])


def _chaos(moved: float, expected: float) -> str:
    """What one moved input code does, if that is as much as what is missing."""
    return f"chaotic: one moved code gives {moved:.0f} dB" if moved <= expected else ""


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, and how many conversions ended well."""
    head = ["network", "exporter", "batch", "exit", "SQNR dB", "stock tool's", "parity dB", "integer coverage", "int8 / float, predicted"]
    head += ["blocks", "layers in blocks", "seconds", "MB", "remark"]
    lines = [head, ["---"] * 3 + ["---:"] * 10 + ["---"]]
    for r in rows:
        within = "" if r.layers is None else f"{_text(r.layers_in_blocks)} of {_text(r.layers)}"
        figures = [_text(r.sqnr_db, 1), _text(r.stock_db, 1), _text(r.parity_db), _text(r.coverage, 1, " %"), _text(r.ratio, 2)]
        lines.append([*r.key, r.exit, *figures, _text(r.blocks), within, _text(r.seconds), _text(r.megabytes), r.reason])
    well = sum(r.exit == "0" for r in rows)
    table = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
    return f"{table}\n{well} of {len(rows)} converted and verified.\n"


def _text(value: float | None, digits: int = 0, unit: str = "") -> str:
    return "" if value is None else f"{value:.{digits}f}{unit}"
