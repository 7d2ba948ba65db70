"""Rows of networks that come with this project: their pictures, and that what they say is scored as elsewhere."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from converter.errors import UsageError
from models.evaluate import main as evaluate
from tools.benchmarks.compare.sources import checkpoint_names
from tools.benchmarks.real import measure
from tools.benchmarks.real.converted import Workshop
from tools.benchmarks.real.networks import recogniser
from tools.benchmarks.real.networks.published import PUBLISHED
from tools.benchmarks.real.networks.recogniser import recogniser_task
from tools.benchmarks.real.rows import Row
from tools.benchmarks.real.tasks import TASKS

NAME = "mobilevit_xxs"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten classes of noise, of which each test picture is there twice; and others to train on, as many as calibrate and some more."""
    rng = np.random.default_rng(0)
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    for name, each in (("test", 2), ("train", 5)):
        with zipfile.ZipFile(tmp_path / f"cifar10_{name}.zip", "w") as pack:
            for label in classes:
                for number in range(each):
                    stream = io.BytesIO()
                    Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(stream, "PNG")
                    pack.writestr(f"{label}/{number:04}.png", stream.getvalue())
    return tmp_path


def test_all_checkpoints_and_the_recogniser_are_networks() -> None:
    assert set(TASKS) - set(PUBLISHED) == {"recogniser", *checkpoint_names()} and len(checkpoint_names()) == 5


def test_a_checkpoint_is_scored_as_by_evaluate(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = measure.Run(data, Workshop(tmp_path / "models", 32), 1, False)
    row = measure.measure_row(run, Row(NAME, "float"))
    assert evaluate([str(tmp_path / f"models/{NAME}.onnx"), "--data", str(data / "cifar10_test.zip")]) == 0
    assert row.figure is not None and f"{row.figure:.2f}" in capsys.readouterr().out


def test_choices_of_calibration_pictures_differ(data: Path) -> None:
    first, taken = TASKS[NAME].calibration(data, 0)
    again, other = TASKS[NAME].calibration(data, 0)[0], TASKS[NAME].calibration(data, 1)[0]
    assert first.shape == (40, 3, 64, 64) and not taken
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_lines_are_read_by_the_best_class_of_each_column(tmp_path: Path) -> None:
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    onnx.helper.set_model_props(model, {"character": "a\nb"})
    path = tmp_path / "recogniser.onnx"
    onnx.save(model, path)
    task = recogniser_task(lambda: path)
    sample = next(iter(task.samples(tmp_path, frozenset())))
    probabilities = np.eye(4, dtype=np.float32)[[[1, 0, 1, 2]]]  # a, blank, a, b
    assert sample.value.shape == (3, 48, 320) and task.reduced({"y": probabilities}, sample.truth) == "aab"
    truths = [("aab", sample.truth[1]), ("ba", sample.truth[1])]
    assert task.figures(["aab", "bb"], truths) == {"exact lines": 50.0, "characters": pytest.approx(80.0)}


def test_a_recogniser_that_was_not_fetched_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(recogniser, "_ROOT", tmp_path)
    with pytest.raises(UsageError, match="make demo"):
        next(iter(recogniser_task().samples(tmp_path, frozenset())))
