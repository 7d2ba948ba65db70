"""The matrix is complete, resumes, and its tables say what its rows say; a small one runs from end to end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest

from converter.distribute.died import died
from converter.errors import UsageError
from converter.testing.models import hybrid_model
from tools.benchmarks.compare import __main__ as command
from tools.benchmarks.compare import measure as measuring
from tools.benchmarks.compare import peers
from tools.benchmarks.compare.__main__ import main
from tools.benchmarks.compare.cells import Cell, Row, cells_of
from tools.benchmarks.compare.measure import Bench
from tools.benchmarks.compare.peers import available_peers, nncf
from tools.benchmarks.compare.plot import plot_means
from tools.benchmarks.compare.settings import keep_settings
from tools.benchmarks.compare.tables import details, matrix, means
from tools.benchmarks.compare.testing.small_matrix import pictures, small_matrix
from tools.benchmarks.compare.variants import Variant, ablation, plain
from tools.benchmarks.table_file import append_row, read_rows

ROWS = [
    Row("a", "float", "", top1=80.0, agreement=100.0, megabytes=4.0),
    Row("a", "minmax", "W8A8", top1=79.0, drop=1.0),
    Row("a", "ours", "W8A8", top1=79.9, drop=0.1),
    Row("b", "float", "", top1=70.0),
    Row("b", "minmax", "W8A8", top1=67.0, drop=3.0),
    Row("b", "ours", "W8A8", top1=70.2, drop=-0.2),
    Row("a", "ours", "W4A8", top1=75.0, drop=5.0),
    Row("b", "ours", "W4A8", failure="no such kernel"),
]


def test_the_matrix_has_float_once_and_every_column_at_its_widths() -> None:
    cells = cells_of(["a"], {"ort-static": ["W8A8"], "mse": ["W8A8", "W4A8"]})
    assert cells == [
        Cell("a", "float", ""),
        Cell("a", "ort-static", "W8A8"),
        Cell("a", "mse", "W8A8"),
        Cell("a", "mse", "W4A8"),
    ]


def test_columns_are_methods_or_seeds_or_the_parts_of_the_search_one_after_the_other() -> None:
    assert plain(["mse"], [0]) == {"mse": Variant("mse", 0)}
    assert plain(["mse"], [3]) == {"mse seed 3": Variant("mse", 3)}
    assert plain(["mse"], [3], full=True) == {"mse full seed 3": Variant("mse", 3, full=True)}
    assert list(plain(["mse", "q-hyvit"], [0, 1])) == ["mse", "mse seed 1", "q-hyvit", "q-hyvit seed 1"]
    switched = [vars(v.parts) for v in ablation(0).values()]
    assert not any(switched[0].values())
    for fewer, more in pairwise(switched):
        (gained,) = [name for name in more if more[name] != fewer[name]]
        assert more[gained]


@pytest.mark.parametrize(
    ("words", "columns"),
    [
        (["--ablation"], list(ablation(0))),
        (
            ["--ablation", "+ range margin", "scale", "--seeds", "0", "2"],
            ["scale", "+ range margin", "scale seed 2", "+ range margin seed 2"],
        ),
        (["--methods", "mse", "--seeds", "2"], ["mse seed 2"]),
    ],
)
def test_an_ablation_is_of_all_steps_or_of_some(words: list[str], columns: list[str]) -> None:
    flags = command._parse([*words, "--data", "x", "--calib", "y", "--out", "z"])
    assert list(command._variants(flags)) == columns


def test_rows_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    assert read_rows(path, Row) == []
    for row in ROWS:
        append_row(path, row)
    assert read_rows(path, Row) == ROWS
    path.write_text("something,else\n1,2\n")
    with pytest.raises(UsageError, match="no table"):
        read_rows(path, Row)


def test_means_count_complete_widths_only() -> None:
    lines = means(ROWS).splitlines()
    assert lines[0] == "| mean drop, 2 models | W8A8 | W4A8 |"
    assert lines[2:] == ["| minmax | 2.00 | – |", "| ours | -0.05 | – |"]


def test_the_best_method_of_each_model_is_bold() -> None:
    lines = matrix(ROWS, "W8A8").splitlines()
    assert lines[0] == "| W8A8 | float | minmax | ours |"
    assert lines[2:] == ["| a | 80.00 | 79.00 | **79.90** |", "| b | 70.00 | 67.00 | **70.20** |"]
    assert matrix(ROWS, "W4A8").splitlines()[3] == "| b | 70.00 | failed |"


def test_details_name_the_reason_of_a_failure() -> None:
    text = details(ROWS)
    assert "| b | ours | W4A8 | failed: no such kernel |" in text
    assert len(text.splitlines()) == len(ROWS) + 2


def test_the_picture_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        plot_means(ROWS, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    plot_means([replace(r, drop=r.drop + 1) for r in ROWS], tmp_path / "other.svg")
    assert (tmp_path / "other.svg").read_bytes() != (tmp_path / "one.svg").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_small_matrix_from_end_to_end_and_again_without_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, jobs: str
) -> None:
    monkeypatch.setattr(measuring, "_LATENCY_SECONDS", 0.01)
    arguments = small_matrix(tmp_path, "--jobs", jobs)
    assert main(arguments) == 0
    assert "3 cells measured, 3 in" in capsys.readouterr().out
    rows = {row.method: row for row in read_rows(tmp_path / "out" / "results.csv", Row)}
    assert all(not row.failure for row in rows.values())
    assert rows["float"].top1 - rows["minmax"].top1 == pytest.approx(rows["minmax"].drop)
    for method in ("minmax", "ort-static"):
        row = rows[method]
        assert row.sqnr_db > 15 and row.coverage > 50 and row.megabytes > 0 and row.latency > 0
    before = (tmp_path / "out" / "results.csv").read_bytes()
    assert main(arguments) == 0
    assert "0 cells measured, 3 in" in capsys.readouterr().out
    assert (tmp_path / "out" / "results.csv").read_bytes() == before


def test_results_of_other_settings_do_not_join_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    keep_settings(tmp_path / "out", {"--target": "x86"})
    assert main(small_matrix(tmp_path)) == 2
    error = capsys.readouterr().err
    assert "--target x86" in error and len(error.splitlines()) <= 3
    assert not (tmp_path / "out" / "results.csv").exists()


def test_what_was_measured_before_workers_died_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def done(_: object, bench: Bench, cells: list[Cell], workers: object, **__: object) -> Iterator[tuple[Cell, Row]]:
        for cell in cells[:2]:
            yield cell, Row(cell.model, cell.method, cell.bits, top1=50.0)
        raise died(command._name(cells[2]))

    monkeypatch.setattr(command, "as_done", done)
    assert main(small_matrix(tmp_path)) == 1
    error = capsys.readouterr().err
    assert "died" in error and "small.onnx minmax W8A8" in error and "start it again" in error
    assert [row.method for row in read_rows(tmp_path / "out" / "results.csv", Row)] == ["float", "ort-static"]


def test_a_cell_that_fails_in_an_unforeseen_way_is_a_row_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Row:
        raise RuntimeError("no memory\nat all")

    monkeypatch.setattr(measuring, "_measured", broken)
    bench = Bench({}, {}, cast(Any, None), tmp_path, 4, "arm64", {}, tmp_path)
    row = measuring.measure(bench, Cell("a", "mse", "W8A8"))
    assert row == Row("a", "mse", "W8A8", failure="unexpected RuntimeError: no memory")


def test_a_row_whose_model_is_gone_stays_without_latency_and_is_not_written_twice(tmp_path: Path) -> None:
    bench = Bench({"a": tmp_path / "a.onnx"}, {}, cast(Any, None), tmp_path, 4, "arm64", {}, tmp_path)
    row = Row("a", "mse", "W8A8", top1=70.0)
    assert command._timed(bench, row, tmp_path / "results.csv") == row
    assert not (tmp_path / "results.csv").exists()


@pytest.mark.parametrize("left", ["a,mse,W8A8,7", "a,mse,W8A8,70.0,1.0"])
def test_a_part_of_a_line_that_a_run_left_is_not_a_row(tmp_path: Path, left: str) -> None:
    path = tmp_path / "results.csv"
    append_row(path, ROWS[0])
    with path.open("a") as stream:
        stream.write(left)
    assert read_rows(path, Row) == ROWS[:1]
    append_row(path, ROWS[1])
    assert read_rows(path, Row) == ROWS[:2]


def test_tools_that_are_not_installed_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: object() if name == "onnxruntime" else None)
    assert available_peers() == ("ort-static",)
    monkeypatch.setattr(peers, "find_spec", lambda name: object())
    assert available_peers() == ("ort-static", "nncf")


def test_nncf_is_given_all_samples_and_the_preset_for_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, answer = hybrid_model(), onnx.ModelProto(producer_name="answer")
    onnx.save(model, tmp_path / "float.onnx")
    asked: list[tuple[Any, ...]] = []

    def quantize(model: onnx.ModelProto, data: list[Any], *, subset_size: int, model_type: str) -> onnx.ModelProto:
        asked.append((model, data, subset_size, model_type))
        return answer

    fake = SimpleNamespace(quantize=quantize, Dataset=list, ModelType=SimpleNamespace(TRANSFORMER="transformer"))
    monkeypatch.setitem(sys.modules, "nncf", cast(Any, fake))
    feeds = [{"image": np.zeros((1, 3, 32, 32), np.float32)}] * 3
    assert nncf(tmp_path / "float.onnx", feeds) is answer
    assert asked == [(model, feeds, 3, "transformer")]


def test_a_model_that_does_not_exist_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(pictures(tmp_path / "test.zip", 4))
    assert main(["--models", "nobody", "--data", data, "--calib", data, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "nobody" in error and len(error.splitlines()) <= 3
