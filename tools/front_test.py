"""The accuracy/latency front: which points are on it, and what the command writes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.testing.sketch import Sketch
from tools.front import Point, csv_text, main, on_front, picture

points = st.lists(
    st.builds(Point, st.just("latency"), st.integers(1, 9).map(float), st.integers(1, 9).map(float), st.none(), st.just(1)), min_size=1
)


@given(points)
def test_on_the_front_nothing_is_beaten_and_off_it_everything_is(found: list[Point]) -> None:
    front = on_front(found)
    costs, decibels = [p.cost for p in front], [p.sqnr_db for p in front]
    assert costs == sorted(set(costs)) and decibels == sorted(set(decibels))
    for point in found:
        assert any(p.cost <= point.cost and p.sqnr_db >= point.sqnr_db for p in front)


SOME = [Point("all", 0.4, 20.0, 0.9, 9), Point("latency", 0.3, 18.0, None, 7), Point("balanced:1", 0.5, 19.0, 0.95, 5)]


def test_the_table_marks_the_front_and_leaves_out_what_is_not_known() -> None:
    rows = list(csv.DictReader(csv_text(SOME).splitlines()))
    assert [(r["placement"], r["on_front"], r["agreement"]) for r in rows] == [
        ("all", "1", "0.9000"),
        ("latency", "1", ""),
        ("balanced:1", "0", "0.9500"),
    ]


def test_the_picture_has_a_dot_a_point_and_the_front_in_one_line() -> None:
    (axes,) = picture(SOME, "a < b").axes
    (line,) = axes.lines
    (dots,) = axes.collections
    assert np.asarray(dots.get_offsets()).tolist() == [[p.cost, p.sqnr_db] for p in SOME]
    assert np.asarray(line.get_xydata()).tolist() == [[0.3, 18.0], [0.4, 20.0]]
    assert [text.get_text() for text in axes.texts] == [p.placement for p in SOME] and axes.get_title() == "a < b"


def test_the_command_converts_at_each_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    s = Sketch(0)
    x = s.conv(s.silu(s.conv(s.input("x", 1, 16, 16, 16), 16, size=1, outputs=32)), 32, size=1, outputs=16)
    source = tmp_path / "small.onnx"
    onnx.save(ir.to_proto(s.model(s.add("Flatten", s.add("GlobalAveragePool", x)))), source)
    flags = [str(source), "--out", str(tmp_path / "out"), "--prices", "1", "--samples", "4"]
    assert main(flags) == 0
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["front.csv", "front.svg", "small_all.onnx", "small_balanced_1.onnx", "small_latency.onnx"]
    assert (tmp_path / "out" / "front.csv").read_text() == capsys.readouterr().out


def test_a_folder_that_cannot_be_is_refused_in_three_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "none.onnx"), "--out", str(tmp_path / "file" / "out")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) <= 3 and "cannot make the folder" in lines[0]
