"""Fill the page: figures become columns of short numbers, in a script element of data that the page's own script draws."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from converter.budget.records import Budget, told
from converter.diagnosis.records import Diagnosis, TensorFigures
from converter.emit.file_bytes import FileBytes
from converter.report import Report, finite, size_advice, summarise

__all__ = ["budget_curve", "diagnosis_columns", "fill", "report_page"]

_PARTS = Path(__file__).parent
_DIGITS = 4
"""Of numbers on the page; the JSON has all."""


def report_page(report: Report) -> str:
    """The page of a conversion, as HTML.

    Args:
        report: with a diagnosis.
    """
    assert report.diagnosis is not None
    verdict = report.verdict
    payload = {
        "title": report.source,
        "subtitle": report.output or "dry run",
        "facts": _facts(report),
        "summary": asdict(summarise(report)),
        "bars": _bars(report),
        "outputs": [] if verdict is None else [{"name": o.name, "db": o.sqnr_db, "agreement": o.agreement} for o in verdict.outputs],
        "warnings": list(report.warnings),
        "notes": list(report.notes),
        "unit": report.cost_unit,
        "bytes": None if report.file_bytes is None else _bytes(report.file_bytes, size_advice(report)),
        **diagnosis_columns(report.diagnosis),
    }
    if report.budget is not None:
        payload["budget"] = budget_curve(report.budget)
    return fill(f"{report.source}: quantization report", payload)


def _bytes(found: FileBytes, advice: str) -> dict[str, Any]:
    """Where the bytes of the file are, for a bar of four parts and a list below it."""
    largest = [[each.bytes, f"{each.op_type} {each.operator}", each.reason] for each in found.largest]
    return {
        "parts": [found.in_8_bits, found.in_float, found.in_others, found.graph],
        "stored": found.stored,
        "largest": largest,
        "advice": advice,
    }


def budget_curve(budget: Budget) -> dict[str, Any]:
    """The search within an accuracy budget, as the page draws it."""
    points = [
        {
            "label": point.label,
            "cost": _short(point.cost, 6),
            "drop": _short(point.drop, 6),
            "score": _short(point.score, 6),
            "integer": point.integer,
            "taken": place == budget.chosen,
        }
        for place, point in enumerate(budget.points)
    ]
    return {"lead": told(budget), "limit": budget.limit, "points": points}


def _facts(report: Report) -> list[list[str]]:
    found = [
        ["method", report.method],
        ["bits", report.bits],
        ["target", report.target],
        ["placement", report.placement],
        ["calibration", report.calibration],
        *([["loss", report.loss]] if report.loss else []),
        ["version", report.version],
    ]
    if report.verdict is not None:
        found.append(["compared on", f"{report.verdict.samples} held-aside sample{'s' if report.verdict.samples > 1 else ''}"])
    return found


def _bars(report: Report) -> list[dict[str, Any]]:
    """Pairs of numbers, float and int8, for the bars of what is gained."""
    bars = []
    if report.integer_bytes:
        bars.append({"name": "file size", "before": report.float_bytes, "after": report.integer_bytes, "unit": "B"})
    pairs = ((f"predicted {cost.unit}", cost.predicted_float, cost.predicted) for cost in report.costs)
    return [*bars, *({"name": name, "before": before, "after": after, "unit": ""} for name, before, after in pairs)]


def diagnosis_columns(diagnosis: Diagnosis) -> dict[str, Any]:
    """A diagnosis by columns, texts that repeat by number."""
    tensors, texts = diagnosis.tensors, _Texts()
    columns: dict[str, Sequence[Any]] = {
        "name": [t.name for t in tensors],
        "operator": [texts.number(t.operator) for t in tensors],
        "type": [texts.number(t.op_type) for t in tensors],
        "segment": [t.segment for t in tensors],
        "kind": [texts.number(t.kind) for t in tensors],
        "bits": [None if t.params is None else t.params.bits for t in tensors],
        "signed": [None if t.params is None else t.params.signed for t in tensors],
        "scale": [_short(t.params.scale[0]) if t.params is not None and t.params.axis is None else None for t in tensors],
        "zero": [t.params.zero_point[0] if t.params is not None and t.params.axis is None else None for t in tensors],
        "channels": [None if t.params is None or t.params.axis is None else len(t.params.scale) for t in tensors],
        "shape": [texts.number("×".join(map(str, t.shape))) for t in tensors],
        "low": [_short(t.low) for t in tensors],
        "high": [_short(t.high) for t in tensors],
        "local": [_decibels(t.local_db) for t in tensors],
        "accumulated": [_decibels(t.accumulated_db) for t in tensors],
        "clipped": [_short(t.clipped) for t in tensors],
        "sensitivity": [_short(t.sensitivity) for t in tensors],
        "runs": [texts.number(t.runs) for t in tensors],
        "floatCost": [_short(t.float_cost) for t in tensors],
        "integerCost": [_short(t.integer_cost) for t in tensors],
        "reason": [texts.number(t.reason) for t in tensors],
        "histogram": [_histogram(t) for t in tensors],
        "widest": [None if t.spread is None else [t.spread.widest, _short(t.spread.ratio), t.spread.channels] for t in tensors],
        "equalization": [texts.number(t.equalization) for t in tensors],
    }
    places = {t.name: i for i, t in enumerate(tensors) if t.kind != "weight"}
    first: dict[str, int] = {}
    for i, t in enumerate(tensors):
        if t.kind != "weight":
            first.setdefault(t.operator, i)
    return {
        "texts": texts.all,
        "tensors": columns,
        "segments": [
            {"bridge": s.bridge, "size": s.size, "tensors": [first[name] for name in s.operators if name in first]}
            for s in diagnosis.segments
        ],
        "worst": [{"tensor": _place(a.tensor, tensors, places), "found": a.found, "do": a.do} for a in diagnosis.worst],
        "ranking": diagnosis.ranking,
        "samples": diagnosis.samples,
        "note": diagnosis.note,
    }


def fill(title: str, payload: dict[str, Any]) -> str:
    """The page with its data, style and script, as HTML.

    Args:
        title: of the window.
        payload: what ``page.js`` reads.
    """
    data = json.dumps(finite(payload), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    # no text of a model may end the element that holds it, or begin a comment in it
    safe = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    safe = safe.encode("utf-8", "replace").decode("utf-8")
    parts = {
        "TITLE": title.replace("&", "&amp;").replace("<", "&lt;").encode("utf-8", "replace").decode("utf-8"),
        "STYLE": (_PARTS / "page.css").read_text(encoding="utf-8"),
        "SCRIPT": (_PARTS / "page.js").read_text(encoding="utf-8"),
        "DATA": safe,
    }
    # cut first, so that nothing that is filled in is searched for the next mark
    pieces = (_PARTS / "page.html").read_text(encoding="utf-8").split("%%")
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


class _Texts:
    """Each text once; others name it by its number."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self.numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        if text not in self.numbers:
            self.numbers[text] = len(self.all)
            self.all.append(text)
        return self.numbers[text]


def _place(name: str, tensors: Sequence[TensorFigures], places: dict[str, int]) -> int:
    return places[name] if name in places else next(i for i, t in enumerate(tensors) if t.name == name)


def _histogram(tensor: TensorFigures) -> list[Any] | None:
    found = tensor.histogram
    return None if found is None else [_short(found.low, 6), _short(found.high, 6), found.below, found.above, list(found.counts)]


def _short(number: float | None, digits: int = _DIGITS) -> float | int | None:
    if number is None or not math.isfinite(number):
        return None
    short = float(f"{number:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def _decibels(number: float | None) -> float | None:
    return None if number is None else round(number, 1)
