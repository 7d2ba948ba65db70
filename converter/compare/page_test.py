"""The page of a comparison holds the figures of both sides beside each other."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from converter.compare.page import comparison_page
from converter.compare.records import Comparison, OutputFigures, Side
from converter.report_page.testing.diagnoses import made_up


def payload(comparison: Comparison) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', comparison_page(comparison), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found.group(1))
    return data


def test_tensors_are_matched_by_name() -> None:
    tensors = made_up(5).tensors
    before = replace(made_up(5), tensors=tuple(replace(t, accumulated_db=20.0) for t in tensors[1:]))
    sides = (
        Side("a.json", "plan", None, 90.0, 0.8, (OutputFigures("y", 30.0),), before),
        Side("b.json", "plan", None, 60.0, 0.9, (OutputFigures("y", 28.0),), made_up(5)),
    )
    data = payload(Comparison(*sides, "float.onnx", "32 images", 8, "arm64", "instructions", ("a note",)))
    assert data["tensors"]["accumulated"] == [10.0, 15.3, 20.6, 25.9, 31.2]
    assert data["tensors"]["before"] == [None, 20.0, 20.0, 20.0, 20.0]
    assert data["tensors"]["change"] == [None, -4.7, 0.6, 5.9, 11.2]
    assert data["outputs"] == [{"name": "y", "db": 28.0, "agreement": None, "before": 30.0}]
    assert data["bars"] == [{"name": "predicted instructions", "before": 90.0, "after": 60.0, "unit": ""}], "plans have no size"
    assert data["notes"] == ["a note"] and data["both"] is True


def test_where_one_side_alone_is_equalized_there_is_no_change() -> None:
    tensors = made_up(3).tensors
    other = replace(made_up(3), tensors=(replace(tensors[0], equalization="applied"), *tensors[1:]))
    sides = [Side(name, "plan", None, 90.0, 0.8, (), diagnosis) for name, diagnosis in (("a.json", made_up(3)), ("b.json", other))]
    data = payload(Comparison(sides[0], sides[1], "float.onnx", "32 images", 8, "arm64", "instructions"))
    assert data["tensors"]["change"] == [None, 0.0, 0.0]


def test_costs_have_a_bar_in_each_unit() -> None:
    sides = (
        Side("float.onnx", "float", None, 200.0, 0.0, (), None, 80.0),
        Side("b.onnx", "model", None, 100.0, 0.9, (), made_up(5), 20.0),
    )
    found = Comparison(*sides, "float.onnx", "32 images", 8, "arm64", "instructions", second_unit="cycles")
    assert [(bar["name"], bar["before"], bar["after"]) for bar in payload(found)["bars"]] == [
        ("predicted instructions", 200.0, 100.0),
        ("predicted cycles", 80.0, 20.0),
    ]
    assert found.gained[:2] == (
        "The predicted cost is 50% of that of float.onnx.",
        "The predicted cost in cycles is 25% of that of float.onnx.",
    )


def test_against_float_there_is_no_second_column() -> None:
    sides = (
        Side("float.onnx", "float", 8000, 200.0, 0.0, (OutputFigures("y", 200.0),), None),
        Side("b.onnx", "model", 2000, None, 0.9, (OutputFigures("y", 28.0),), made_up(5)),
    )
    data = payload(Comparison(*sides, "float.onnx", "32 images", 8, "arm64", "instructions"))
    assert "before" not in data["tensors"] and data["both"] is False
    assert data["bars"] == [{"name": "file size", "before": 8000, "after": 2000, "unit": "B"}]
