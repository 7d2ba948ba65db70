"""Broken calibration data: damaged pictures, wrong arrays, archives that lie, pipes.

Whatever is given, the command ends with exit code 0, 2 or 4 and a message, in time.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from converter.testing.models import SIZE, hybrid_model
from tools.fuzz.command import call
from tools.fuzz.outcome import Outcome, complaints

__all__ = ["BREAKS", "run"]

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_INPUT = "image"
_BOMB = 3 << 30
"""Bytes that unpack from a few megabytes."""


def run(seed: int, folder: Path) -> Outcome:
    """One attempt; the folder is empty."""
    random = Random(seed)
    source, output, home = folder / "in.onnx", folder / "out.onnx", folder / "data"
    home.mkdir()
    source.write_bytes(hybrid_model(dynamic_batch=random.random() < 0.5).SerializeToString())
    name = random.choice(list(BREAKS))
    calib = BREAKS[name](home, random)
    called = call(source, output, flags=["--method", "minmax", "--calib", str(calib)])
    faults = complaints(called.code, (0, 2, 4), output.exists(), called.err)
    return Outcome("data", seed, name, (str(called.code),), tuple(faults), called.seconds)


# What is whole


def _picture(random: Random, side: int = 40) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(random.randrange(2**32)).integers(0, 256, (side, side + 3, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, format=random.choice(_FORMATS))
    return buffer.getvalue()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _pictures(random: Random) -> np.ndarray:
    return np.random.default_rng(random.randrange(2**32)).random((6, 3, SIZE, SIZE), np.float32)


def _zipped(path: Path, entries: Mapping[str, bytes], random: Random) -> Path:
    with zipfile.ZipFile(path, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def _damaged(content: bytes, random: Random) -> bytes:
    style = random.choice(("cut", "flip", "flip", "insert", "empty"))
    place = random.randrange(len(content))
    if style == "cut":
        return content[:place]
    if style == "flip":
        changed = bytearray(content)
        for _ in range(random.choice((1, 3, 20))):
            changed[random.randrange(min(len(changed), random.choice((64, 10**9))))] = random.randrange(256)
        return bytes(changed)
    return b"" if style == "empty" else content[:place] + random.randbytes(9) + content[place:]


# What is broken


def damaged_pictures(home: Path, random: Random) -> Path:
    for number in range(8):
        content = _picture(random)
        broken = random.random() < random.choice((0.3, 1.0))
        (home / f"{number}.{random.choice(('png', 'jpg', 'bmp'))}").write_bytes(_damaged(content, random) if broken else content)
    return home


def odd_folder(home: Path, random: Random) -> Path:
    """Pictures beside what is none, or nothing else."""
    styles = ("empty", "folder named like a picture", "pipe", "loop", "text", "link to nowhere", "device", "one pixel", "very wide")
    if random.random() < 0.5:
        for number in range(4):
            (home / f"{number}.png").write_bytes(_picture(random))
    for style in random.sample(styles, random.choice((1, 2, 3))):
        place = home / f"{style.replace(' ', '_')}.png"
        if style == "folder named like a picture":
            place.mkdir()
        elif style == "pipe":
            os.mkfifo(place)
        elif style == "loop":
            place.symlink_to(home, target_is_directory=True)
        elif style == "text":
            place.write_text("no picture")
        elif style == "link to nowhere":
            place.symlink_to(home / "nowhere")
        elif style == "device":
            place.symlink_to(random.choice(("/dev/zero", "/dev/null", "/dev/tty")))
        elif style == "one pixel":
            Image.new(random.choice(("RGB", "1", "RGBA", "I;16", "P", "F", "CMYK")), (1, 1)).save(place, format="TIFF")
        elif style == "very wide":
            Image.new("L", (60000, 1)).save(place)
    return home


def large_header(home: Path, random: Random) -> Path:
    """A small file that says it holds a picture of a billion pixels."""
    content = bytearray(_png())
    side = random.choice((10**5, 2**31 - 1, 30000)).to_bytes(4, "big")
    content[16:20], content[20:24] = side, side
    for number in range(3):
        (home / f"{number}.png").write_bytes(bytes(content))
    return home


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="PNG")
    return buffer.getvalue()


def wrong_array(home: Path, random: Random) -> Path:
    """An array that does not fit, or whose numbers do not."""
    array = _pictures(random)
    arrays: dict[str, np.ndarray] = {
        "rank": array[0, 0],
        "scalar": np.asarray(1.0),
        "channels": array[:, :2],
        "size": array[..., :5],
        "no samples": array[:0],
        "nan": np.where(array < 0.5, np.nan, array),
        "one nan": np.where(np.arange(array.size).reshape(array.shape) == array.size // 2, np.nan, array),
        "infinite": array * np.float32(np.inf),
        "huge": array * np.float32(1e38),
        "tiny": array * np.float32(1e-44),
        "double": array.astype(np.float64) * 1e300,
        "text": np.asarray([["a"]]),
        "complex": array.astype(np.complex64),
        "integers": (array * 1e9).astype(np.int64),
        "bool": array > 0.5,
        "fields": np.zeros(3, [("a", np.float32), ("b", np.int8)]),
        "dates": np.zeros((2, 3, SIZE, SIZE), "datetime64[s]"),
        "objects": np.asarray([object()], dtype=object),
        "constant": array * 0,
        "transposed": array.transpose(0, 2, 3, 1),
    }
    wrong = arrays[random.choice(list(arrays))]
    if random.random() < 0.5:
        return _written(home / "data.npy", _npy(wrong))
    names = random.choice(([_INPUT], ["other"], [_INPUT, "other"], [], ["../image"], [_INPUT + ".npy"]))
    np.savez(home / "data.npz", allow_pickle=True, **dict.fromkeys(names, wrong))
    return home / "data.npz"


def damaged_array(home: Path, random: Random) -> Path:
    if random.random() < 0.5:
        return _written(home / "data.npy", _damaged(_npy(_pictures(random)), random))
    whole = _zipped(home / "whole.npz", {f"{_INPUT}.npy": _npy(_pictures(random))}, random).read_bytes()
    (home / "whole.npz").unlink()
    return _written(home / "data.npz", _damaged(whole, random))


def lying_header(home: Path, random: Random) -> Path:
    """A header that promises more than there is."""
    shape = random.choice(
        ("(1000000000, 3, 32, 32)", "(-1, 3, 32, 32)", "(6, 3, 32)", "(2, 3, 32, 99999999999999999999)", "__import__('os')", "[6]")
    )
    header = f"{{'descr': '{random.choice(('<f4', '|O', '<f16', '>f4'))}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + _pictures(random).tobytes()
    if random.random() < 0.5:
        return _written(home / "data.npy", content)
    return _zipped(home / "data.npz", {f"{_INPUT}.npy": content}, random)


def odd_archive(home: Path, random: Random) -> Path:
    """A zip whose entries have odd names, are archives themselves, lie about their size, or whose directory is damaged."""
    entries = {f"{number}.png": _picture(random) for number in range(4)}
    style = random.choice(("names", "nested", "damaged", "empty", "bare", "same names", "folders"))
    if style == "names":
        entries = {random.choice(("../../up.png", "/etc/x.png", "a\0b.png", "ü" * 200 + ".png", "con:.png", " .png")): _picture(random)}
    elif style == "nested":
        entries = {"inner.zip": _zipped(home / "inner.zip", entries, random).read_bytes()}
        (home / "inner.zip").unlink()
    elif style == "folders":
        entries = {"a.png/": b"", **entries}
    elif style == "empty":
        entries = {}
    path = _zipped(home / "data.zip", entries, random)
    if style == "same names":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("x.png", _picture(random))
            archive.writestr("x.png ", b"")
    content = path.read_bytes()
    if style == "damaged":
        path.write_bytes(_damaged(content, random))
    elif style == "bare":
        path.write_bytes(content[: len(content) // 2])
    return path


def bomb(home: Path, random: Random) -> Path:
    """Gigabytes of zeros, packed."""
    name = random.choice(("a.png", f"{_INPUT}.npy"))
    path = home / ("data.npz" if name.endswith("npy") else "data.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open(name, "w", force_zip64=True) as entry:
        if name.endswith("npy"):
            rows = _BOMB // (4 * 3 * SIZE * SIZE)
            np.lib.format.write_array_header_1_0(entry, {"descr": "<f4", "fortran_order": False, "shape": (rows, 3, SIZE, SIZE)})
        chunk = bytes(1 << 24)
        for _ in range(_BOMB >> 24):
            entry.write(chunk)
    return path


def no_file(home: Path, random: Random) -> Path:
    """A path that is nothing to read."""
    style = random.choice(("missing", "pipe", "device", "text", "long", "loop"))
    path = home / random.choice(("data.npz", "data.npy", "data.zip", "data", "data.txt"))
    if style == "pipe":
        os.mkfifo(path)
    elif style == "device":
        path.symlink_to(random.choice(("/dev/zero", "/dev/null")))
    elif style == "text":
        path.write_text("no data")
    elif style == "long":
        return home / ("x" * 300)
    elif style == "loop":
        path.symlink_to(path)
    return path


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


_OFTEN = (damaged_pictures, odd_folder, large_header, wrong_array, damaged_array, lying_header, odd_archive, no_file)
BREAKS: Mapping[str, Callable[[Path, Random], Path]] = {
    **{f"{breaks.__name__.replace('_', ' ')}{again}": breaks for again in ("", " (2)", " (3)") for breaks in _OFTEN},
    "bomb": bomb,
}
"""Each makes broken data in a folder and returns what to give as --calib; a bomb takes seconds to make and is rare."""
