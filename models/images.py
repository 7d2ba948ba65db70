"""Labelled images from a zip or a folder that holds one folder per class."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from converter.budget.labels import class_of_each
from models.imagenet import wordnet_numbers

__all__ = ["LabelledImages", "find_images", "labelled_images", "load_uint8"]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"}


@dataclass(frozen=True)
class LabelledImages:
    """Where the images lie and what they show.

    Attributes:
        source: a zip file or a folder.
        entries: image paths inside the source, sorted.
        labels: class index of each entry; classes are numbered in sorted order of their names.
        classes: the names of the classes, mostly those of their folders, in order.
    """

    source: Path
    entries: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.entries)

    def images(self) -> Iterator[Image.Image]:
        """Decode the images one by one, as RGB."""
        if self.source.is_dir():
            for entry in self.entries:
                with Image.open(self.source / entry) as image:
                    yield image.convert("RGB")
            return
        with zipfile.ZipFile(self.source) as archive:
            for entry in self.entries:
                with Image.open(io.BytesIO(archive.read(entry))) as image:
                    yield image.convert("RGB")

    def part(self, start: int, stop: int) -> LabelledImages:
        """Those at the places from ``start`` up to, but not including, ``stop``."""
        return LabelledImages(self.source, self.entries[start:stop], self.labels[start:stop], self.classes)

    def take(self, count: int, seed: int = 0) -> LabelledImages:
        """Pick ``count`` images at random, the same ones for the same seed."""
        picked = sorted(np.random.default_rng(seed).permutation(len(self))[:count].tolist())
        return LabelledImages(
            self.source,
            tuple(self.entries[i] for i in picked),
            tuple(self.labels[i] for i in picked),
            self.classes,
        )


def labelled_images(source: Path) -> LabelledImages:
    """List the images of a zip or folder whose innermost folder names the class.

    Raises:
        ValueError: not a zip or folder, or no image lies in a class folder.
    """
    entries = [path for path in _image_paths(source) if len(PurePosixPath(path).parts) > 1]
    if not entries:
        raise ValueError(f"{source}: no image inside a class folder (expected CLASS/NAME.jpg)")
    return _with_labels(source, entries, [PurePosixPath(entry).parent.name for entry in entries])


def find_images(source: Path) -> LabelledImages:
    """List images that lie in class folders, or whose names all begin with class index and WordNet number.

    An example of the second kind is ``0007_n01514668_cock.jpg``; its class is called ``7``. Validation images of ImageNet may also lie
    in one folder, as they are distributed, see :mod:`models.imagenet`.

    Raises:
        ValueError: not a zip or folder, or the images are of no such kind.
    """
    entries = _image_paths(source)
    flat = wordnet_numbers(source, entries)
    if flat is not None:
        return _with_labels(source, entries, flat)
    labelled = [(entry, name) for entry, name in zip(entries, class_of_each(entries), strict=True) if name]
    return _with_labels(source, [entry for entry, _ in labelled], [name for _, name in labelled]) if labelled else labelled_images(source)


def _image_paths(source: Path) -> list[str]:
    """Every image of a zip or folder, sorted."""
    if source.is_dir():
        paths = [p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()]
    elif zipfile.is_zipfile(source):
        try:
            with zipfile.ZipFile(source) as archive:
                paths = archive.namelist()
        except zipfile.BadZipFile as error:
            raise ValueError(f"{source}: the zip is damaged ({error})") from None
    else:
        raise ValueError(f"{source}: neither a folder nor a zip of images")
    return sorted(path for path in paths if PurePosixPath(path).suffix.lower() in _SUFFIXES)


def _with_labels(source: Path, entries: list[str], names: list[str]) -> LabelledImages:
    """Label images by the names of their classes, numbered in sorted order."""
    classes = tuple(sorted(set(names)))
    index = {name: i for i, name in enumerate(classes)}
    return LabelledImages(source, tuple(entries), tuple(index[name] for name in names), classes)


def load_uint8(data: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
    """Decode all images, which must have one size, to uint8 [N, 3, H, W], and give their labels as int64 [N]."""
    pixels = np.stack([np.asarray(image).transpose(2, 0, 1) for image in data.images()])
    return pixels, np.asarray(data.labels, np.int64)
