"""Conversions within an accuracy budget, from end to end."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from converter.budget.records import Budget
from converter.errors import BoundMissedError, CalibrationError, UsageError
from converter.options import Options
from converter.pipeline import convert
from converter.report import report_json
from converter.runtime.session import open_session, run_session
from converter.testing.command import QUICK, check_refusal, names
from converter.testing.models import Run, WriteImages, hybrid_model

pytestmark = pytest.mark.usefixtures("few_turns")


def options(**changes: Any) -> Options:
    """A quick method, which estimates no loss: so there is one placement."""
    return Options(**{"samples": 4, "threads": 1, "method": "minmax", **changes})


def command(code: str) -> str:
    return shlex.join([sys.executable, "-c", f"import sys; {code}"])


WORSE_THAN_FLOAT = command("print(0.6 if sys.argv[1].endswith('model.onnx') else 0.9)")
"""What we write for it is called model.onnx; the float model keeps its name."""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in folders called by what the float network takes them for."""
    folder, session = tmp_path_factory.mktemp("labelled"), open_session(hybrid_model())
    generator = np.random.default_rng(0)
    for index in range(24):
        pixels = np.kron(generator.integers(0, 256, (4, 4, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        scores = run_session(session, {"image": pixels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)})["logits"]
        file = folder / str(int(scores.argmax())) / f"{index:02}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
    return folder


def budget_of(source: Path, **changes: Any) -> Budget:
    budget = convert(source, options=options(**changes)).budget
    assert budget is not None
    return budget


def test_a_budget_that_the_fastest_placement_holds_takes_one_evaluation(source: Path, labelled: Path, tmp_path: Path) -> None:
    report = convert(source, tmp_path / "out.onnx", options(max_drop=100.0, evaluation=labelled), json_out=tmp_path / "out.json")
    budget = report.budget
    assert budget is not None and budget.met and budget.evaluations == 1
    assert (budget.float_score, budget.unit, budget.data) == (100.0, "points", f"24 images of {labelled.name}")
    assert budget.taken is not None and budget.taken.score is not None and budget.taken.drop == 100.0 - budget.taken.score
    assert budget.taken.cost == pytest.approx(report.predicted / report.predicted_float)
    assert json.loads((tmp_path / "out.json").read_text())["budget"]["points"][0]["drop"] == budget.taken.drop
    assert names(tmp_path) == ["out.json", "out.onnx"]


def test_agreement_and_sqnr_need_no_labels(source: Path, write_images: WriteImages, tmp_path: Path) -> None:
    images = write_images(tmp_path)
    agreement = budget_of(source, max_drop=100.0, evaluation=images, metric="agreement")
    assert agreement.taken is not None and agreement.taken.drop is not None and 0.0 <= agreement.taken.drop < 50.0
    exact = budget_of(source, max_drop=100.0, evaluation=images, metric="sqnr")
    assert exact.taken is not None and exact.taken.drop is not None and 0.0 < exact.taken.drop < 5.0
    arrays = tmp_path / "image.npy"
    np.save(arrays, np.random.default_rng(0).uniform(0.2, 0.8, (5, 3, 32, 32)).astype(np.float32))
    assert budget_of(source, max_drop=100.0, evaluation=arrays, metric="sqnr").data == "5 samples of image.npy"


def test_an_impossible_budget_is_exit_6_and_leaves_what_was_there(run: Run, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_bytes(b"old")
    outcome = run(source, tmp_path / "out.onnx", *QUICK, "--max-drop", "0.1", "--metric", WORSE_THAN_FLOAT, "--json", tmp_path / "r.json")
    check_refusal(outcome, 6, "the least drop found is 0.3 (0.6, float 0.9), 0.1 were allowed; nothing was written", "--keep-best")
    assert (tmp_path / "out.onnx").read_bytes() == b"old" and names(tmp_path) == ["out.onnx"]


def test_with_keep_best_the_best_found_is_written_and_told(run: Run, source: Path, tmp_path: Path) -> None:
    words = (*QUICK, "--max-drop", "0.1", "--metric", WORSE_THAN_FLOAT, "--keep-best")
    outcome = run(source, tmp_path / "out.onnx", *words)
    assert outcome.code == 6 and "best found was written" in outcome.err
    assert "drop 0.3 of at most 0.1" in outcome.out and "<- chosen" in outcome.out
    assert names(tmp_path) == ["out.onnx"]


def test_a_command_that_fails_on_the_float_model_ends_it_before_any_search(run: Run, source: Path, tmp_path: Path) -> None:
    words = (*QUICK, "--max-drop", "0.1", "--metric", command("sys.exit('no such data')"))
    check_refusal(run(source, tmp_path / "out.onnx", *words), 2, "exit code 1: no such data", "--metric")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--max-drop", "0.5"], "give some with --eval"),
        (["--max-drop", "-1", "--metric", "true"], "is not a drop"),
        (["--max-drop", "1", "--metric", "top5"], "top1, agreement, sqnr"),
        (["--max-drop", "1", "--metric", "true", "--max-evaluations", "0"], "1 to 1000"),
        (["--max-drop", "1", "--metric", "true", "--placement", "all"], "--max-drop with --placement"),
        (["--max-drop", "1", "--metric", "true", "--dry-run"], "--max-drop with --dry-run"),
        (["--keep-best"], "give --max-drop too"),
        (["--metric", "sqnr"], "give --max-drop too"),
    ],
)
def test_usage(run: Run, source: Path, tmp_path: Path, words: list[str], text: str) -> None:
    check_refusal(run(source, tmp_path / "out.onnx", *words), 2, text)
    assert names(tmp_path) == []


def test_evaluation_data_that_cannot_be_used(source: Path, labelled: Path, write_images: WriteImages, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no calibration data at this path"):
        budget_of(source, max_drop=1.0, evaluation=tmp_path / "absent")
    with pytest.raises(UsageError, match=r"2 classes .class0, class1.* and the model 10 outputs"):
        budget_of(source, max_drop=1.0, evaluation=write_images(tmp_path / "images"))
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "flat" / "a.png")
    with pytest.raises(UsageError, match="no class folder"):
        budget_of(source, max_drop=1.0, evaluation=tmp_path / "flat")
    (tmp_path / "flat" / "a.png").write_bytes(b"no picture")
    with pytest.raises(CalibrationError, match="an image cannot be read") as caught:
        budget_of(source, max_drop=1.0, evaluation=tmp_path / "flat", metric="sqnr")
    assert "a.png" in caught.value.where


@pytest.mark.slow
def test_a_tighter_budget_costs_more_is_held_and_gives_the_same_bytes_again(source: Path, labelled: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"method": "q-hyvit", "samples": 8, "evaluation": labelled, "metric": "sqnr"}
    loose = budget_of(source, max_drop=100.0, **common)
    assert loose.evaluations == 1 and loose.taken is not None and loose.taken.drop is not None
    limit = loose.taken.drop / 2
    for name in ("a", "b"):
        report = convert(source, tmp_path / f"{name}.onnx", options(max_drop=limit, **common))
        budget = report.budget
        assert budget is not None and budget.met and 1 < budget.evaluations <= 12
        assert budget.taken is not None and budget.taken.drop is not None and budget.taken.drop <= limit
        assert loose.taken.cost < budget.taken.cost < 1.0
        assert all(point.drop > limit for point in budget.points if point.drop is not None and point.cost < budget.taken.cost)
        assert "within the budget" in report_json(report)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    with pytest.raises(BoundMissedError):
        convert(source, tmp_path / "c.onnx", options(max_drop=0.0, max_evaluations=1, **common))
    assert not (tmp_path / "c.onnx").exists()
