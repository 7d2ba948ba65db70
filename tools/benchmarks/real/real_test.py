"""The command on made-up networks and pictures; on the real ones where they are at hand."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.benchmarks.real import __main__ as command
from tools.benchmarks.real import answers, converted, measure
from tools.benchmarks.real.answers import chosen
from tools.benchmarks.real.converted import Workshop
from tools.benchmarks.real.networks import published
from tools.benchmarks.real.networks.published import PUBLISHED
from tools.benchmarks.real.rows import Row, markdown
from tools.benchmarks.real.tasks import TASKS
from tools.benchmarks.real.testing.red_classes import red_classes
from tools.benchmarks.table_file import read_rows

_DATA = os.environ.get(command.DATA_VARIABLE, "")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return red_classes(tmp_path)


def _arguments(data: Path, out: Path, *more: str) -> list[str]:
    return ["--data", str(data), "--networks", "classifier", "--models", str(out.parent / "models"), "--out", str(out), *more]


def _run(data: Path, folder: Path) -> measure.Run:
    return measure.Run(data, Workshop(folder, 4), 1, False)


def test_rows_are_measured_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "rows.csv"
    assert command.main(_arguments(data, out, "--methods", "float", "mse", "ort-s8s8", "--samples", "4", "--placement", "all")) == 0
    rows = {row.method: row for row in read_rows(out, Row)}
    assert {row.figure for row in rows.values()} == {100.0}
    assert rows["float"].drop is None and rows["mse"].drop == 0.0
    for row in (rows["mse"], rows["ort-s8s8"]):
        assert row.coverage == 100.0 and row.predicted and row.predicted_float
    assert rows["mse"].predicted_float == rows["ort-s8s8"].predicted_float
    assert rows["mse"].sqnr_db is not None and rows["mse"].sqnr_db > 25 and rows["mse"].remark == ""

    def again(*_: Any) -> Row:
        raise AssertionError("measured again")

    monkeypatch.setattr(command, "measure_row", again)
    assert command.main(_arguments(data, out, "--methods", "float", "mse", "--placement", "all")) == 0


def test_what_cannot_be_made_is_a_row_that_says_why(data: Path, tmp_path: Path) -> None:
    (data / TASKS["classifier"].model).write_bytes(b"no model")
    found = measure.measure_row(_run(data, tmp_path), Row("classifier", "mse", "W8A8", "latency"))
    assert found.figure is None and found.remark.startswith("error: ")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--without", "magic"], "the search has no part 'magic'"),
        (["--data", "nowhere"], "there is no such folder"),
        (["--bits", "W9A9"], "W9A9"),
        (["--placement", "fast"], "fast"),
        (["--jobs", "-1"], "--jobs must be at least 0"),
    ],
)
def test_mistakes_are_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], what: str) -> None:
    assert command.main(_arguments(data, tmp_path / "rows.csv", *words)) == 2
    assert what in capsys.readouterr().err and not (tmp_path / "rows.csv").exists()


def test_the_folder_is_named_by_a_variable_or_by_the_command_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--networks", "classifier", "--methods", "float", "--models", str(tmp_path), "--out", str(tmp_path / "rows.csv")]
    monkeypatch.delenv(command.DATA_VARIABLE, raising=False)
    assert command.main(words) == 2 and command.DATA_VARIABLE in capsys.readouterr().err
    monkeypatch.setenv(command.DATA_VARIABLE, str(data))
    assert command.main(words) == 0


def test_other_tools_have_neither_bits_nor_parts() -> None:
    flags = command._parse(
        ["--data", ".", "--methods", "float", "ort-s8s8", "q-hyvit", "--bits", "W8A8", "W6A6", "--without", "", "bridge"]
    )
    keys = [row.key[1:5] for row in command.wanted(flags) if row.network == "face"]
    ours = [("q-hyvit", bits, "latency", without) for bits in ("W8A8", "W6A6") for without in ("", "bridge")]
    assert keys == [("float", "", "", ""), ("ort-s8s8", "W8A8", "", ""), *ours]


def test_a_model_serves_both_halves_of_the_images_and_float_is_run_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, row = _run(data, tmp_path), Row("classifier", "mse", "W8A8", "latency", part="even")
    first = measure.measure_row(run, row)

    def again(*_: Any, **__: Any) -> Any:
        raise AssertionError("made or run again")

    monkeypatch.setattr(converted, "run_limited", again)
    monkeypatch.setattr(answers, "_write", again)
    other = measure.measure_row(run, replace(row, part="odd"))
    assert (first.seconds, first.predicted, first.coverage) == (other.seconds, other.predicted, other.coverage)
    with pytest.raises(AssertionError, match="made or run again"):
        measure.measure_row(replace(run, shop=replace(run.shop, samples=3)), row)


def test_a_tool_that_is_not_there_is_a_remark(data: Path, tmp_path: Path) -> None:
    found = measure.measure_row(_run(data, tmp_path), Row("classifier", "quark", "W8A8"))
    assert found.remark.startswith("error: quark cannot be imported") and found.figure is None


def test_rows_side_by_side_are_those_one_by_one(data: Path, tmp_path: Path) -> None:
    files = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for out, jobs in zip(files, "12", strict=True):
        words = ["--methods", "float", "minmax", "--samples", "4", "--jobs", jobs, "--models", str(tmp_path / jobs)]
        assert command.main(_arguments(data, out, *words)) == 0
    one, two = ({row.key: (row.figures, row.sqnr_db, row.predicted) for row in read_rows(out, Row)} for out in files)
    assert one == two and len(one) == 2


def test_halves_share_no_image(data: Path) -> None:
    task = TASKS["classifier"]
    names = [[s.name for s in chosen(part, task.samples(data, frozenset()))] for part in ("all", "even", "odd")]
    assert sorted(names[1] + names[2]) == names[0] == sorted(names[0]) and not set(names[1]) & set(names[2])
    assert len(names[0]) == 12  # those that are given for calibration are never judged


def test_another_choice_of_calibration_images_leaves_the_judged_ones(data: Path) -> None:
    array, taken = TASKS["classifier"].calibration(data, 3)
    assert len(array) == len(taken) and not taken & {s.name for s in TASKS["classifier"].samples(data, taken)}


def test_lanes_of_float_have_to_stay_lanes() -> None:
    wanted, got = [np.array([0.99, 0.51, 0.2, 0.1])], [np.array([0.6, 0.4, 0.7, 0.3])]
    assert published._same_lanes(got, wanted) == {"agreement": 50.0, "all queries": 50.0, "lanes a picture": 2.0}
    assert published._same_lanes([np.array([0.6])], [np.array([0.4])])["agreement"] == 100.0  # there is none to be lost


def test_the_table_says_what_a_reader_has_to_know() -> None:
    row = Row(
        "face",
        "q-hyvit",
        "W8A8",
        "latency",
        "scheme+bridge",
        figures="TAR=80.00 nearest=99.00",
        figure=80.0,
        drop=1.5,
        drop_error=0.25,
    )
    text = markdown([replace(row, predicted=40.0, predicted_float=80.0), Row("face", "float", figures="TAR=81.50", figure=81.5)])
    assert text.index("| float |") < text.index("| q-hyvit | W8A8 | latency | scheme, bridge | choice 0, all | 80.00 | 1.50 ± 0.25 |")
    assert "40.0 (0.50)" in text and "published as int8" in text


def test_mean_drops_are_over_networks_in_percent_that_all_methods_have() -> None:
    def row(network: str, method: str, drop: float, without: str = "", choice: str = "0") -> Row:
        return Row(network, method, "W6A6", "latency", without, choice, figure=50.0, drop=drop, drop_error=1.0)

    rows = [row("classifier", "q-hyvit", 1.0), row("face", "q-hyvit", 2.0), row("lanes", "q-hyvit", 9.0)]
    rows += [row("super-resolution", "q-hyvit", 0.2)]
    rows += [row("classifier", "easyquant", 10.0), row("face", "easyquant", 30.0), row("super-resolution", "easyquant", 0.4)]
    text = markdown([*rows, row("face", "q-hyvit", 90.0, without="bridge"), row("face", "q-hyvit", 90.0, choice="1")])
    assert "**mean drop at W6A6, points: classifier, face**" in text
    assert "| easyquant | 20.00 |\n| q-hyvit | 1.50 |\n" in text


@pytest.mark.slow
@pytest.mark.skipif(not _DATA, reason="BRIDGEQUANT_REAL_DATA does not name the folder of trained networks")
def test_float_scores_are_those_that_stand_beside_the_networks(tmp_path: Path) -> None:
    run = measure.Run(Path(_DATA), Workshop(tmp_path, 32), 2, False)
    found = {name: measure.measure_row(run, Row(name, "float")).figures for name in PUBLISHED}
    assert found["detector"] == "mAP50=64.24" and found["lanes"].startswith("agreement=100.00")
    assert found["classifier"] == "top-1=70.52"
    assert "nearest=99.75" in found["face"] and found["super-resolution"].startswith("PSNR=27.")
