"""What images show, by where they lie or how they are called, and which of a model's outputs stands for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

__all__ = ["class_of_each", "outputs_of_classes"]

_NUMBERED = re.compile(r"(\d+)_n\d{8}_")


def class_of_each(files: Sequence[str]) -> list[str]:
    """Name of the class of each image; empty where nothing tells it.

    If all names begin with a class index and a WordNet number, as ``0007_n01514668_cock.jpg``, that index is the class, ``7``. Else
    it is the folder that the image lies in.

    Args:
        files: paths within a folder or zip, with slashes.
    """
    matches = [_NUMBERED.match(PurePosixPath(file).name) for file in files]
    if all(matches):
        return [str(int(match[1])) for match in matches if match]
    return [PurePosixPath(file).parent.name for file in files]


def outputs_of_classes(classes: Sequence[str], outputs: int, names: Sequence[str] = ()) -> dict[str, int] | None:
    """The output that stands for each class; None if they cannot be matched.

    1. The model's class names are known and the data's are among them: by name.
    2. The data's classes are numbers: the number is the output.
    3. There are as many classes as outputs: in sorted order, of numbers by value.

    Args:
        classes: of the data, each once.
        outputs: how many the model has.
        names: of the model's outputs, in order; empty if unknown.
    """
    numbers = all(name.isdecimal() for name in classes)
    if names and set(classes) <= set(names):
        return {name: list(names).index(name) for name in classes}
    if numbers and max(map(int, classes)) < outputs:
        return {name: int(name) for name in classes}
    if len(classes) == outputs:
        ordered = sorted(classes, key=int) if numbers else sorted(classes)
        return {name: place for place, name in enumerate(ordered)}
    return None
