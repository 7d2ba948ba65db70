"""The matrix is complete, resumes, and its tables say what its rows say; a small one runs from end to end."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from converter.conftest import hybrid_model
from converter.errors import UsageError
from tools.compare.__main__ import main
from tools.compare.cells import Cell, Row, append_row, cells_of, read_rows
from tools.compare.plot import plot_means
from tools.compare.tables import details, matrix, means
from tools.compare.variants import Variant, ablation, plain

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


def test_the_matrix_has_float_once_and_peers_at_their_width_only() -> None:
    cells = cells_of(["a"], ["ort-static", "mse"], ["W8A8", "W4A8"])
    assert cells == [
        Cell("a", "float", ""),
        Cell("a", "ort-static", "W8A8"),
        Cell("a", "mse", "W8A8"),
        Cell("a", "mse", "W4A8"),
    ]


def test_columns_are_methods_or_seeds_or_the_parts_of_the_search_one_after_the_other() -> None:
    assert plain(["mse"], [3]) == {"mse": Variant("mse", 3)}
    assert plain(["mse"], [3], full=True) == {"mse full": Variant("mse", 3, full=True)}
    assert list(plain(["mse", "q-hyvit"], [0, 1])) == ["mse seed 0", "mse seed 1", "q-hyvit seed 0", "q-hyvit seed 1"]
    switched = [vars(v.parts) for v in ablation(0).values()]
    assert not any(switched[0].values())
    for fewer, more in pairwise(switched):
        (gained,) = [name for name in more if more[name] != fewer[name]]
        assert more[gained]


def test_rows_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    assert read_rows(path) == []
    for row in ROWS:
        append_row(path, row)
    assert read_rows(path) == ROWS
    path.write_text("something,else\n1,2\n")
    with pytest.raises(UsageError, match="no table"):
        read_rows(path)


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


def _pictures(path: Path, count: int) -> Path:
    generator = np.random.default_rng(count)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            stream = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "png")
            archive.writestr(f"{number % 10}/{number}.png", stream.getvalue())
    return path


def test_a_small_matrix_from_end_to_end_and_again_without_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "small.onnx"
    onnx.save(hybrid_model(metadata={"bridgequant.preprocess": "unit;resize=stretch"}), model)
    arguments = ["--models", str(model), "--methods", "ort-static", "minmax", "--bits", "W8A8", "--samples", "4", "--jobs", "1"]
    arguments += ["--data", str(_pictures(tmp_path / "test.zip", 20)), "--calib", str(_pictures(tmp_path / "train.zip", 8))]
    arguments += ["--out", str(tmp_path / "out"), "--placement", "all"]
    assert main(arguments) == 0
    assert "3 cells measured, 3 in" in capsys.readouterr().out
    rows = {row.method: row for row in read_rows(tmp_path / "out" / "results.csv")}
    assert all(not row.failure for row in rows.values())
    assert rows["float"].top1 - rows["minmax"].top1 == pytest.approx(rows["minmax"].drop)
    assert rows["minmax"].sqnr_db > 15 and rows["ort-static"].sqnr_db > 15
    assert rows["minmax"].coverage > 50 and rows["minmax"].megabytes > 0
    assert main(arguments) == 0
    assert "0 cells measured, 3 in" in capsys.readouterr().out


def test_a_model_that_does_not_exist_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(_pictures(tmp_path / "test.zip", 4))
    assert main(["--models", "nobody", "--data", data, "--calib", data, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "nobody" in error and len(error.splitlines()) <= 3
