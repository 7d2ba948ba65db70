"""The command on a made-up network and pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from converter.budget.metrics import Evaluation, open_metric
from converter.calibration.input_specs import InputSpec
from converter.load.model import load
from tools.benchmarks.budget import __main__ as command
from tools.benchmarks.budget.judge import SCORE, SQNR, Judge, exactness, judge_of, metric_of
from tools.benchmarks.budget.rows import Row, markdown
from tools.benchmarks.real.networks.published import PUBLISHED
from tools.benchmarks.real.testing.red_classes import red_classes
from tools.benchmarks.table_file import read_rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return red_classes(tmp_path)


def _arguments(data: Path, out: Path, *more: str) -> list[str]:
    return ["--data", str(data), "--networks", "classifier", "--models", str(out.parent / "models"), "--out", str(out), *more]


def _judge(data: Path, part: str = "even") -> Judge:
    return judge_of(PUBLISHED["classifier"], data, onnx.load(data / PUBLISHED["classifier"].model), part, 1)


def test_rows_are_measured_once_and_a_tool_that_is_not_there_is_a_remark(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.csv"
    words = _arguments(data, out, "--budgets", "sqnr:1", "--tools", "bridgequant", "quark", "--evaluations", "3")
    assert command.main(words) == 0
    ours, other = read_rows(out, Row)
    assert ours.remark == "" and ours.figure == 100.0 and ours.drop == 0.0 and ours.evaluations is not None and ours.evaluations <= 3
    assert ours.chosen_drop is not None and ours.holds and ours.noise is not None and 0.0 <= ours.noise < 1.0
    assert ours.predicted is not None and ours.predicted_float is not None and ours.predicted <= ours.predicted_float
    assert other.remark.startswith("quark cannot be imported") and other.figure is None

    def again(*_: Any, **__: Any) -> Row:
        raise AssertionError("measured again")

    monkeypatch.setattr(command, "measure_row", again)
    capsys.readouterr()
    assert command.main(words) == 0 and "| classifier | output error 1 | bridgequant |" in capsys.readouterr().out


def test_the_error_of_the_output_is_that_of_the_budget(data: Path, tmp_path: Path) -> None:
    """`--metric sqnr` of the command line and what other tools are judged by are one number."""
    judge, source = _judge(data), load(data / PUBLISHED["classifier"].model)
    coarse = onnx.load(data / PUBLISHED["classifier"].model)
    coarse.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.array([0.47, -0.44], np.float32), "b"))
    np.savez(tmp_path / "even.npz", images=np.stack([sample.value for sample in judge.samples]))
    inputs = [InputSpec("images", (1, 3, 224, 224), np.dtype(np.float32))]
    at = Evaluation(source, tmp_path / "even.npz", inputs, None, (), {}, {}, {}, 1)
    places = range(len(judge.samples))
    found = metric_of(judge, SQNR, judge.answers(coarse, places), places)
    assert 0.0 < found < 100.0 and found == pytest.approx(open_metric("sqnr", at).score(coarse))


def test_scores_are_of_the_images_that_are_asked_for(data: Path) -> None:
    even, odd = _judge(data), _judge(data, "odd")
    assert not {s.name for s in even.samples} & {s.name for s in odd.samples}
    wrong = [{"logits": -one["logits"]} for one in even.floats]
    assert metric_of(even, SCORE, even.floats, range(len(even.samples))) == 100.0
    assert metric_of(even, SCORE, [wrong[0], even.floats[1]], [0, 1]) == 50.0
    assert exactness(even.floats, wrong) == pytest.approx(-300.0)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--budgets", "top1:1"], "'top1:1' is no budget"),
        (["--budgets", "score:much"], "'score:much' is no budget"),
        (["--budgets", "score:-1"], "'score:-1' is no budget"),
        (["--data", "nowhere"], "the folder of networks and images is not there"),
        (["--bits", "W9A9"], "W9A9"),
        (["--evaluations", "0"], "--evaluations must be at least 1"),
    ],
)
def test_mistakes_are_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], what: str) -> None:
    assert command.main(_arguments(data, tmp_path / "rows.csv", *words)) == 2
    assert what in capsys.readouterr().err and not (tmp_path / "rows.csv").exists()


def test_other_tools_have_eight_bits_only() -> None:
    flags = command._parse(["--data", ".", "--networks", "face", "--budgets", "score:0", "--bits", "W8A8", "W6A6"])
    assert [row.key[1:3] for row in command.wanted(flags)] == [
        ("bridgequant", "W8A8"),
        ("bridgequant", "W6A6"),
        ("nncf", "W8A8"),
        ("quark", "W8A8"),
    ]


def test_the_table_has_tools_side_by_side_and_says_what_missed() -> None:
    ours = Row("face", "bridgequant", "W8A8", "score", "0.5", 0.25, 12, 0, 88.0, 0.75, 1.5, 0.4, 90.0, 50.0, 100.0)
    other = replace(ours, tool="nncf", chosen_drop=0.75, rankings=81.0, predicted=120.0)
    text = markdown([other, Row("classifier", "quark", "W8A8", "sqnr", "1", remark="a | b"), ours])
    assert "| face | score 0.5 | bridgequant | 0.25 | 12 | 88.00 | 0.75 ± 1.50 | 0.40 | 50.0 (0.50) |" in text
    assert "| face | score 0.5 | nncf | 0.75 (missed) | 12 + 81 |" in text and "| a / b |" in text
    assert text.index("bridgequant") < text.index("nncf") < text.index("quark")
