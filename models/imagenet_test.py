"""Validation images of ImageNet in one folder, in miniature: five of three classes, of which the kit has an order of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from models.evaluate import main
from models.imagenet import DEVKIT
from models.images import find_images
from models.testing.classifier import evaluate, strongest_channel

RED, GREEN, BLUE = "n03000000", "n01000000", "n02000000"
COLOURS = {RED: (250, 10, 10), GREEN: (10, 250, 10), BLUE: (10, 10, 250)}
SHOWN = [RED, BLUE, GREEN, GREEN, BLUE]
SEEN = [RED, BLUE, GREEN, RED, BLUE]
"""What the pictures look like: the fourth is labelled green and is red."""


def images(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, seen in enumerate(SEEN, start=1):
        Image.new("RGB", (6, 6), COLOURS[seen]).save(folder / f"ILSVRC2012_val_{number:08d}.JPEG", quality=95)
    return folder


def devkit(folder: Path) -> Path:
    """The kit: classes 1 blue, 2 red, 3 green, and an inner node of WordNet with the number 4."""
    data = folder / DEVKIT / "data"
    data.mkdir(parents=True)
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    rows = [(1, BLUE, "blue", 0), (2, RED, "red", 0), (3, GREEN, "green", 0), (4, "n00000001", "colour", 3)]
    savemat(data / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n1\n3\n3\n1\n")
    return data


def solution(folder: Path) -> None:
    lines = [f"ILSVRC2012_val_{n:08d},{wnid} 1 2 3 4 {wnid} 5 6 7 8 \n" for n, wnid in enumerate(SHOWN, start=1)]
    (folder / "LOC_val_solution.csv").write_text("".join(["ImageId,PredictionString\n", *reversed(lines)]))


def shown(source: Path) -> list[str]:
    data = find_images(source)
    return [data.classes[label] for label in data.labels]


def test_flat_folder_with_the_kit_beside_it(tmp_path: Path) -> None:
    devkit(tmp_path)
    assert shown(images(tmp_path / "val")) == SHOWN


def test_flat_folder_of_the_edition_on_kaggle(tmp_path: Path) -> None:
    solution(tmp_path)
    assert shown(images(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val")) == SHOWN


def test_a_part_of_the_images_keeps_its_labels(tmp_path: Path) -> None:
    devkit(tmp_path)
    folder = images(tmp_path / "val")
    (folder / "ILSVRC2012_val_00000001.JPEG").unlink()
    assert shown(folder) == SHOWN[1:]


def test_images_in_folders_of_their_classes_need_no_kit(tmp_path: Path) -> None:
    folder = images(tmp_path / "val")
    for number, wnid in enumerate(SHOWN, start=1):
        (folder / wnid).mkdir(exist_ok=True)
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        (folder / name).rename(folder / wnid / name)
    assert sorted(shown(folder)) == sorted(SHOWN)


def test_top_1_of_the_flat_layout(tmp_path: Path) -> None:
    """Four of five: outputs are red, green and blue."""
    devkit(tmp_path)
    model = strongest_channel(tmp_path / "model.onnx", classes=[RED, GREEN, BLUE])
    report = evaluate(tmp_path, model, images(tmp_path / "val"))
    assert (report["images"], report["correct"]) == (5, 4)


def test_without_labels_the_message_says_what_to_put_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = strongest_channel(tmp_path / "model.onnx", classes=[RED, GREEN, BLUE])
    assert main([str(model), "--data", str(images(tmp_path / "val"))]) == 2
    assert DEVKIT in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["short", "unknown class", "no number", "meta"])
def test_a_damaged_kit_is_named(tmp_path: Path, damage: str) -> None:
    data = devkit(tmp_path)
    truth = data / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text(
        {"short": "2\n1\n", "unknown class": "2\n1\n3\n3\n99\n", "no number": "2\n1\n3\n3\nblue\n"}.get(damage, "2\n1\n3\n3\n1\n")
    )
    if damage == "meta":
        (data / "meta.mat").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"meta\.mat" if damage == "meta" else "ground_truth"):
        find_images(images(tmp_path / "val"))
