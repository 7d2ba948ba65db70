"""Labelled images from a zip or a folder that holds one folder per class."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

__all__ = ["LabelledImages", "labelled_images", "load_uint8"]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"}


@dataclass(frozen=True)
class LabelledImages:
    """Where the images lie and what they show.

    Attributes:
        source: a zip file or a folder.
        entries: image paths inside the source, sorted.
        labels: class index of each entry; classes are numbered in sorted order of their folders' names.
        classes: the folder names, in order.
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

    def take(self, count: int, seed: int = 0) -> LabelledImages:
        """A random subset of ``count`` images, the same one for the same seed."""
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
    if source.is_dir():
        paths = (p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file())
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            paths = iter(archive.namelist())
    else:
        raise ValueError(f"{source}: neither a folder nor a zip of images")
    entries = sorted(p for p in paths if PurePosixPath(p).suffix.lower() in _SUFFIXES and len(PurePosixPath(p).parts) > 1)
    if not entries:
        raise ValueError(f"{source}: no image inside a class folder (expected CLASS/NAME.jpg)")
    folders = [PurePosixPath(entry).parent.name for entry in entries]
    classes = tuple(sorted(set(folders)))
    index = {name: i for i, name in enumerate(classes)}
    return LabelledImages(source, tuple(entries), tuple(index[f] for f in folders), classes)


def load_uint8(data: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
    """All images, which must have one size, as uint8 [N, 3, H, W], and their labels as int64 [N]."""
    pixels = np.stack([np.asarray(image).transpose(2, 0, 1) for image in data.images()])
    return pixels, np.asarray(data.labels, np.int64)
