"""What the page's script reads, around a diagnosis."""

from __future__ import annotations

from typing import Any

from converter.diagnosis.records import Diagnosis
from converter.report_page.page import diagnosis_columns

__all__ = ["payload_of"]


def payload_of(diagnosis: Diagnosis) -> dict[str, Any]:
    """A conversion with one output."""
    return {
        "title": "model.onnx",
        "subtitle": "int8.onnx",
        "facts": [["method", "q-hyvit"], ["target", "arm64"]],
        "summary": {"gained": ["a", "b", "94.0% of the multiply-accumulates ran in integer."], "lost": [], "next": "Measure its accuracy."},
        "bars": [
            {"name": "file size", "before": 4e6, "after": 2e6, "unit": "B"},
            {"name": "predicted instructions", "before": 2e7, "after": 8e6, "unit": ""},
        ],
        "outputs": [{"name": "logits", "db": 29.9, "agreement": 1.0}],
        "warnings": ["a warning"],
        "notes": ["a note"],
        "unit": "instructions",
        "bytes": {
            "parts": [1.2e6, 6e5, 1e5, 1e5],
            "stored": 1,
            "largest": [[512_000, "Gemm head", "for accuracy"], [512, "Conv stem", ""]],
            "advice": "more could be stored",
        },
        **diagnosis_columns(diagnosis),
    }
