"""Collections of small pictures."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from PIL import Image

Colour = tuple[int, int, int]


def make_zip(path: Path, pictures: dict[str, Colour]) -> Path:
    """Write a zip of 8 x 8 PNG pictures, each of one colour, and return its path."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, colour in pictures.items():
            stream = io.BytesIO()
            Image.new("RGB", (8, 8), colour).save(stream, "PNG")
            archive.writestr(name, stream.getvalue())
    return path
