"""The page of a comparison: that of the second side, with the figures of the first beside its own."""

from __future__ import annotations

from typing import Any

from converter.compare.records import Comparison, change_of
from converter.report_page.page import diagnosis_columns, fill

__all__ = ["comparison_page"]


def comparison_page(comparison: Comparison) -> str:
    """The page, as HTML."""
    first, second = comparison.first, comparison.second
    assert second.diagnosis is not None, "the second side is no float model"
    columns = diagnosis_columns(second.diagnosis)
    if first.diagnosis is not None:
        before = {t.name: t for t in first.diagnosis.tensors if t.kind != "weight"}
        matched = [before.get(t.name) if t.kind != "weight" else None for t in second.diagnosis.tensors]
        old = [None if t is None or t.accumulated_db is None else round(t.accumulated_db, 1) for t in matched]
        columns["tensors"]["before"] = old
        changes = [change_of(a, b) for a, b in zip(matched, second.diagnosis.tensors, strict=True)]
        columns["tensors"]["change"] = [None if change is None else round(change, 1) for change in changes]
        columns["before"] = first.name
    old_db = {o.name: o.sqnr_db for o in first.outputs}
    payload = {
        "title": first.name,
        "subtitle": second.name,
        "eyebrow": "Comparison",
        "facts": [
            ["against", comparison.floats],
            ["target", comparison.target],
            ["calibration", comparison.calibration],
            ["compared on", f"{comparison.samples} held-aside sample{'s' if comparison.samples > 1 else ''}"],
        ],
        "summary": {"gained": comparison.gained, "lost": comparison.lost, "next": comparison.next},
        "bars": _bars(comparison),
        "outputs": [{"name": o.name, "db": o.sqnr_db, "agreement": o.agreement, "before": old_db.get(o.name)} for o in second.outputs],
        "both": first.kind != "float",
        "warnings": [],
        "notes": list(comparison.notes),
        "unit": comparison.unit,
        **columns,
    }
    return fill(f"{first.name} and {second.name}: comparison", payload)


def _bars(comparison: Comparison) -> list[dict[str, Any]]:
    one, other = comparison.first, comparison.second
    costs = ((f"predicted {unit}", before, after, "") for unit, before, after in comparison.costs)
    pairs = (*costs, ("file size", one.bytes, other.bytes, "B"))
    return [{"name": name, "before": a, "after": b, "unit": unit} for name, a, b, unit in pairs if a and b]
