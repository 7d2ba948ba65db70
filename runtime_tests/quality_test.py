"""Accuracy by hand: the score of a class is how red, green or blue a picture is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from converter.errors import VerificationError
from converter.testing.sketch import Sketch
from runtime_tests.model_pair import open_model_pair
from runtime_tests.parity import measure_parity
from runtime_tests.quality import labels_of, measure_accuracy, measure_closeness
from runtime_tests.testing.files import MakeFiles

COLOURS = {"0": (200, 10, 10), "1": (10, 200, 10), "2": (10, 10, 200)}
WRONG = ("2", (200, 10, 10))
"""A red picture in the folder of blue ones: nobody gets it right."""


def colour_model(path: Path, *factors: float) -> Path:
    """Means of the channels, times a factor each."""
    sketch = Sketch()
    mean = sketch.add("Flatten", sketch.add("GlobalAveragePool", sketch.input("x", 1, 3, 8, 8)))
    path.write_bytes(ir.to_proto(sketch.model(sketch.add("Mul", mean, sketch.constant(list(factors))))).SerializeToString())
    return path


def pictures(folder: Path) -> Path:
    for place, (name, colour) in enumerate([*COLOURS.items(), WRONG]):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), colour).save(folder / name / f"{place}.png")
    return folder


def test_top_1_drop_and_agreement_by_hand(tmp_path: Path) -> None:
    """Float gets three of four pictures right; a model that is blind to blue gets two, and agrees with float on three."""
    data = pictures(tmp_path / "data")
    floats, blind = colour_model(tmp_path / "a.onnx", 1, 1, 1), colour_model(tmp_path / "b.onnx", 1, 1, 0)
    labels = labels_of(data, None)
    assert labels is not None
    accuracy, closeness = measure_accuracy(open_model_pair(floats, blind, data=data, preprocess="unit"), labels)
    assert (accuracy.images, accuracy.float_top1, accuracy.int8_top1, accuracy.drop) == (4, 75.0, 50.0, 25.0)
    assert closeness.agreement == 75.0
    pixels = np.array([*COLOURS.values(), WRONG[1]]) / 255
    assert closeness.sqnr_db == pytest.approx(10 * np.log10(np.sum(pixels**2) / np.sum(pixels[:, 2] ** 2)), abs=1e-3)


@pytest.mark.parametrize("factor", [-5.0, float("nan")])
def test_labels_do_not_hide_what_other_outputs_do(factor: float, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    paths = []
    for name, times in (("a", 1.0), ("b", factor)):
        sketch = Sketch()
        mean = sketch.add("Flatten", sketch.add("GlobalAveragePool", sketch.input("x", 1, 3, 8, 8)))
        model = sketch.model(sketch.add("Mul", mean, sketch.constant(1.0)), sketch.add("Mul", mean, sketch.constant(times)))
        paths.append(tmp_path / f"{name}.onnx")
        paths[-1].write_bytes(ir.to_proto(model).SerializeToString())
    labels, model_pair = labels_of(data, None), open_model_pair(*paths, data=data, preprocess="unit")
    assert labels is not None
    if np.isnan(factor):
        with pytest.raises(VerificationError, match="not finite"):
            measure_accuracy(model_pair, labels)
        with pytest.raises(VerificationError, match="not finite"):
            measure_parity(model_pair)
    else:
        accuracy, closeness = measure_accuracy(model_pair, labels)
        assert accuracy.drop == 0.0 and closeness.sqnr_db == pytest.approx(-20 * np.log10(6.0), abs=1e-3)


def test_without_labels_the_samples_are_compared(make_files: MakeFiles) -> None:
    files = make_files()
    same = measure_closeness(open_model_pair(files.floats, files.floats))
    assert (same.sqnr_db, same.agreement) == (200.0, 100.0)
    found = measure_closeness(open_model_pair(files.floats, files.int8, count=4))
    assert found.samples == 4
    assert 15 < found.sqnr_db < 80


def test_folders_that_do_not_name_classes_give_no_labels(tmp_path: Path) -> None:
    data = pictures(tmp_path / "all")
    assert labels_of(data / "0", None) is None
    assert labels_of(tmp_path / "samples.npz", None) is None
    limited = labels_of(data, 2)
    assert limited is not None and len(limited) == 2
