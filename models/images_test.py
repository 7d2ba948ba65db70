from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.images import find_images, labelled_images, load_uint8
from models.testing.pictures import make_zip

RED, GREEN = (255, 0, 0), (0, 255, 0)


def test_innermost_folder_names_the_class(tmp_path: Path) -> None:
    data = labelled_images(make_zip(tmp_path / "a.zip", {"x/b/1.png": RED, "x/a/2.png": GREEN, "x/b/0.png": GREEN, "x/b/notes.txt": RED}))
    assert data.classes == ("a", "b")
    assert list(zip(data.entries, data.labels, strict=True)) == [("x/a/2.png", 0), ("x/b/0.png", 1), ("x/b/1.png", 1)]


def test_zip_and_folder_hold_the_same_pixels(tmp_path: Path) -> None:
    import zipfile

    archive = make_zip(tmp_path / "a.zip", {"b/1.png": RED, "a/2.png": GREEN})
    with zipfile.ZipFile(archive) as content:
        content.extractall(tmp_path / "folder")
    pixels, labels = load_uint8(labelled_images(archive))
    assert pixels.shape == (2, 3, 8, 8)
    assert pixels[:, :, 0, 0].tolist() == [list(GREEN), list(RED)]
    assert labels.tolist() == [0, 1]
    assert np.array_equal(load_uint8(labelled_images(tmp_path / "folder"))[0], pixels)


def test_taking_is_repeatable_and_keeps_labels(tmp_path: Path) -> None:
    data = labelled_images(make_zip(tmp_path / "a.zip", {f"{'ab'[i % 2]}/{i}.png": RED for i in range(9)}))
    taken = data.take(5)
    assert (taken.entries, taken.labels) == (data.take(5).entries, data.take(5).labels)
    assert len(set(taken.entries)) == 5
    assert all(data.labels[data.entries.index(entry)] == label for entry, label in zip(taken.entries, taken.labels, strict=True))
    assert data.take(5, seed=1).entries != taken.entries


def test_names_that_begin_with_class_index_and_wordnet_number(tmp_path: Path) -> None:
    names = {"0010_n01530575_brambling.jpg": RED, "0002_n01484850_great_white_shark.jpg": GREEN, "more/0002_n01484850_again.jpg": GREEN}
    data = find_images(make_zip(tmp_path / "a.zip", names))
    assert [data.classes[label] for label in data.labels] == ["2", "10", "2"]


def test_other_names_need_class_folders(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"0001_n01443537_goldfish.jpg": RED, "cat.jpg": RED})
    with pytest.raises(ValueError, match="expected CLASS/NAME"):
        find_images(archive)
    with pytest.raises(ValueError, match="neither a folder nor a zip"):
        find_images(tmp_path / "absent.zip")


def test_collections_at_hand(shared_data: Path) -> None:
    data = find_images(shared_data / "cifar10_test.zip")
    assert len(data) == 10_000
    assert data.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert np.bincount(data.labels).tolist() == [1000] * 10
    sample = find_images(shared_data / "imagenet_sample.zip")
    assert sorted(map(int, sample.classes)) == list(range(1000))
