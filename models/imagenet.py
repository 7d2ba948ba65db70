"""Labels of the validation images of ImageNet (ILSVRC 2012) as they are distributed: 50,000 files in one folder, whose names tell no class.

What they show stands elsewhere. Two forms are read, wherever they lie in the images' folder or in one of those around it:

1. The development kit, ``ILSVRC2012_devkit_t12``: line n of ``data/ILSVRC2012_validation_ground_truth.txt`` is the number of the class
   of image n, from 1 to 1000, and ``data/meta.mat`` has the WordNet number of each. The numbers follow an order of the kit's own.
2. ``LOC_val_solution.csv`` of the edition on Kaggle: the name of an image, and WordNet numbers with boxes, all of the same class.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

__all__ = ["DEVKIT", "wordnet_numbers"]

DEVKIT = "ILSVRC2012_devkit_t12"
_TRUTH, _CLASSES, _SOLUTION = "ILSVRC2012_validation_ground_truth.txt", "meta.mat", "LOC_val_solution.csv"
_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)
_WORDNET = re.compile(r"n\d{8}")
_FOLDERS_UP = 5  # the edition on Kaggle has its images in ILSVRC/Data/CLS-LOC/val


def wordnet_numbers(source: Path, entries: Sequence[str]) -> list[str] | None:
    """What each image shows, as a WordNet number; None if these are no validation images of ImageNet, or lie in folders of their classes.

    Args:
        source: folder or zip of the images.
        entries: their paths in it, with slashes.

    Raises:
        ValueError: the labels are not there, or are damaged.
    """
    paths = [PurePosixPath(entry) for entry in entries]
    matches = [_IMAGE.fullmatch(path.name) for path in paths]
    if not entries or not all(matches) or any(_WORDNET.fullmatch(path.parent.name) for path in paths):
        return None
    if _WORDNET.fullmatch(source.name):  # one class of many
        return None
    numbers = [int(match[1]) for match in matches if match]
    for folder in islice([source, *source.resolve().parents], _FOLDERS_UP + 1):
        for kit in (folder / DEVKIT / "data", folder / "data", folder):
            if (kit / _TRUTH).is_file() and (kit / _CLASSES).is_file():
                return _by_devkit(kit, numbers)
        if (folder / _SOLUTION).is_file():
            return _by_solution(folder / _SOLUTION, numbers)
    what = f"{source}: nothing tells what the images show; put {DEVKIT} (with {_TRUTH} and {_CLASSES}) or {_SOLUTION} beside the folder"
    raise ValueError(what)


def _by_devkit(kit: Path, numbers: Sequence[int]) -> list[str]:
    names = _classes(kit / _CLASSES)
    lines = (kit / _TRUTH).read_text().split()
    if max(numbers) > len(lines) or min(numbers) < 1:
        raise ValueError(f"{kit / _TRUTH}: {len(lines)} lines, none for image {max(numbers)}")
    try:
        return [names[int(lines[number - 1])] for number in numbers]
    except (KeyError, ValueError) as error:
        raise ValueError(f"{kit / _TRUTH}: there is no class {error} in {_CLASSES}") from None


def _classes(path: Path) -> dict[int, str]:
    """WordNet numbers by the kit's numbers; the kit lists inner nodes of WordNet, too, behind the classes."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        return {int(entry["ILSVRC2012_ID"]): str(entry["WNID"]) for entry in synsets}
    except Exception as error:  # of a damaged file scipy raises whatever comes
        raise ValueError(f"{path}: not the list of classes of the development kit ({error})") from None


def _by_solution(path: Path, numbers: Sequence[int]) -> list[str]:
    with open(path, newline="") as file:
        known = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file) if row.get("PredictionString")}
    missing = [number for number in numbers if f"ILSVRC2012_val_{number:08d}" not in known]
    if missing:
        raise ValueError(f"{path}: no line for image {missing[0]}")
    return [known[f"ILSVRC2012_val_{number:08d}"] for number in numbers]
