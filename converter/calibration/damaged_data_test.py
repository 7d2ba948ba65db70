"""Whatever calibration data hold, only errors with a message leave the reader."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from converter.calibration.input_shapes import calibration_shapes
from converter.calibration.samples import InputSpec, load_samples
from converter.errors import ConverterError
from converter.load.model import Source, load
from converter.testing.models import make_model

COMPRESSIONS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
INPUTS = [InputSpec("x", (None, 3, 4, 5), np.dtype(np.float32))]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::SyntaxWarning")


def array_bytes() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).random((6, 3, 4, 5), np.float32))
    return buffer.getvalue()


def archived(entries: dict[str, bytes], compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def image_bytes(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)).save(buffer, format=kind)
    return buffer.getvalue()


WHOLE: dict[str, Callable[[int], bytes]] = {
    "a.npy": lambda compression: array_bytes(),
    "a.npz": lambda compression: archived({"x.npy": array_bytes()}, compression),
    "a.zip": lambda compression: archived({f"{kind}.png": image_bytes(kind) for kind in FORMATS}, compression),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("damaged") / "in.onnx"
    shapes: list[int | str | None] = ["n", 3, "h", "w"]
    onnx.save(
        make_model([helper.make_node("Relu", ["x"], ["y"])], [("x", TensorProto.FLOAT, shapes)], [("y", TensorProto.FLOAT, shapes)]), path
    )
    return load(path)


def check(model: Source, name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        source = Path(folder) if name == "a.png" else Path(folder) / name
        try:
            samples = load_samples(source, INPUTS, count=4, preprocess=None, seed=0)
            assert all(feed["x"].shape == (1, 3, 4, 5) for feed in samples.calibration)
        except ConverterError as error:
            assert len(str(error).splitlines()) <= 3 and str(source) in error.where
        try:
            specs, _ = calibration_shapes(model, {}, source, 1)
            assert [spec.name for spec in specs] == ["x"]
        except ConverterError as error:
            assert len(str(error).splitlines()) <= 3 and str(source) in error.where


@pytest.mark.parametrize("name", [*WHOLE, "a.png"])
@settings(deadline=None, max_examples=60)
@given(
    content=st.binary(max_size=400),
    magic=st.sampled_from([b"", b"\x93NUMPY\x01\x00v\x00{'descr': ", b"PK\x03\x04", b"PK\x05\x06", b"II*\x00"]),
)
def test_any_bytes(model: Source, name: str, content: bytes, magic: bytes) -> None:
    check(model, name, magic + content)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", WHOLE)
@settings(deadline=None, max_examples=40)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=4),
    keep=st.floats(0.3, 1.5),
    early=st.booleans(),
)
@example(changes=[], keep=1.0, early=False)
def test_changed_and_shortened_files(
    model: Source, name: str, compression: int, changes: list[tuple[float, bytes]], keep: float, early: bool
) -> None:
    """Headers lie in the first bytes and the directory of an archive in the last: changes there are the interesting ones."""
    content = bytearray(WHOLE[name](compression))
    for place, replacement in changes:
        start = int(place * 160) if early else int(place * len(content))
        content[start : start + len(replacement)] = replacement
    check(model, name, bytes(content[: int(keep * len(content))]))


@settings(deadline=None, max_examples=60)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255), keep=st.floats(0.3, 1.5), kind=st.sampled_from(FORMATS))
def test_changed_and_shortened_images(model: Source, position: int, value: int, keep: float, kind: str) -> None:
    content = bytearray(image_bytes(kind))
    content[position % len(content)] = value
    check(model, "a.png", bytes(content[: int(keep * len(content))]))
