"""From image files to the numbers a network expects: decode, resize, normalise.

A preprocessing is written as one short text, the SPEC of ``--preprocess``::

    imagenet                              mean 0.485,0.456,0.406  std 0.229,0.224,0.225  resize crop
    unit                                  pixel values 0..1       resize stretch
    symmetric                             pixel values -1..1      resize stretch
    mean=0.5,0.4,0.3;std=0.2              one number stands for all three channels
    unit;resize=pad                       any of them with another resize policy

Pixel values are divided by 255 before ``mean`` is subtracted and the rest divided by ``std``, so a network that
wants 0..255 is served by ``mean=0;std=0.00392156862745098``.
"""

from __future__ import annotations

import difflib
import io
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar, cast, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError, features

from converter.calibration.calibration_files import files_below, reading, refuse_bomb
from converter.errors import CalibrationError, ModelError, UsageError
from converter.load.metadata import PREPROCESS

__all__ = [
    "PRESETS",
    "Preprocess",
    "Resize",
    "apply_preprocess",
    "mean_and_std",
    "normalised",
    "open_images",
    "parse_preprocess",
    "picture_codes",
    "spec_text",
    "stated_preprocess",
]

Resize = Literal["stretch", "crop", "pad"]
Triple = tuple[float, float, float]
Number = TypeVar("Number", bound=np.generic)

RESIZES: tuple[Resize, ...] = get_args(Resize)
KEYS = ("mean", "std", "resize")
READS_AVIF = "avif" in features.modules and features.check_module("avif")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", *(("AVIF",) if READS_AVIF else ()))
IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp", *((".avif",) if READS_AVIF else ())}
)
LARGEST_IMAGE = 1 << 26  # pixels; several copies are made of them
LARGEST_IMAGE_FILE = 1 << 29  # bytes; a longer zip entry is a decompression bomb rather than a picture

# Nobody's mean or deviation of 0..1 pixel values is this large: a greater number was meant for 0..255 pixels.
LARGEST_SENSIBLE = 10.0


@dataclass(frozen=True)
class Preprocess:
    """How pictures become network inputs.

    Attributes:
        mean: subtracted per channel (red, green, blue), in units of 0..1 pixel values.
        std: divides per channel after that, same units, greater than zero.
        resize: ``stretch`` ignores the aspect ratio, ``crop`` covers the target and cuts the centre out, ``pad`` fits
            inside and fills up with zeros on the right and at the bottom.

    Raises:
        UsageError: a number is not finite, not positive (std) or looks like a 0..255 value.
    """

    mean: Triple
    std: Triple
    resize: Resize = "stretch"

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.std)
        if not all(math.isfinite(number) for number in numbers):
            raise UsageError("mean and std must be finite numbers", where="--preprocess", hint=_valid())
        if min(self.std) <= 0:
            raise UsageError("std must be greater than 0", where="--preprocess", hint=f"got {_numbers(self.std)}")
        if max(abs(number) for number in numbers) > LARGEST_SENSIBLE:
            scaled = f"mean={_numbers([round(m / 255, 6) for m in self.mean])};std={_numbers([round(s / 255, 6) for s in self.std])}"
            raise UsageError(
                "mean and std are in units of 0..1 pixel values, and these look like 0..255",
                where="--preprocess",
                hint=f"divide them by 255: --preprocess '{scaled}'",
            )
        if self.resize not in RESIZES:
            raise UsageError(f"'{self.resize}' is not a resize policy", where="--preprocess", hint=f"valid: {', '.join(RESIZES)}")


PRESETS: dict[str, Preprocess] = {
    "imagenet": Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "crop"),
    "unit": Preprocess((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "symmetric": Preprocess((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def parse_preprocess(text: str) -> Preprocess:
    """Read a SPEC as described at the top of this module.

    Args:
        text: terms separated by semicolons, white space, or commas, in any order and case.

    Returns:
        The preprocessing it stands for.

    Raises:
        UsageError: the text is not a SPEC; the hint holds the nearest valid spelling.
    """
    tidy = re.sub(r"\s*([,=])\s*", r"\1", text.strip().lower())
    # a comma in front of "name=" ends a term, any other separates channels
    terms = [term for term in re.split(r"[;\s]+|,(?=[a-z]+=)", tidy) if term]
    presets = [term for term in terms if "=" not in term]
    pairs = [term.split("=", 1) for term in terms if "=" in term]
    values = dict(pairs)
    for preset in presets:
        if preset not in PRESETS:
            raise _refusal(text, f"'{preset}' is not a preprocessing", tidy, preset, tuple(PRESETS))
    for key in values:
        if key not in KEYS:
            raise _refusal(text, f"'{key}' is not a part of a preprocessing", tidy, key, KEYS)
    if "resize" in values and values["resize"] not in RESIZES:
        raise _refusal(text, f"'{values['resize']}' is not a resize policy", tidy, values["resize"], RESIZES)
    if len(values) < len(pairs) or len(presets) > 1:
        raise _refusal(text, "a part is given twice")
    if presets and not values.keys() <= {"resize"}:
        raise _refusal(text, f"'{presets[0]}' already says what mean and std are")
    if not presets and not values.keys() >= {"mean", "std"}:
        raise _refusal(text, "a preset name, or both mean and std, are needed")
    plain = PRESETS[presets[0]] if presets else Preprocess(_triple(text, values["mean"]), _triple(text, values["std"]))
    return replace(plain, resize=cast(Resize, values.get("resize", plain.resize)))


def stated_preprocess(metadata: Mapping[str, str]) -> Preprocess | None:
    """What a model's metadata say of its inputs; None if they say nothing.

    Raises:
        ModelError: what they say is not a SPEC.
    """
    text = metadata.get(PREPROCESS)
    if not text:
        return None
    try:
        return parse_preprocess(text)
    except UsageError as error:
        hint = f"say it with --preprocess, or export the model again; {_valid()}"
        raise ModelError(f"how images become inputs is damaged: {error.what}", where=f"metadata {PREPROCESS}", hint=hint) from error


def spec_text(preprocess: Preprocess) -> str:
    """Write the shortest SPEC that `parse_preprocess` turns back into exactly `preprocess`."""
    for name, preset in PRESETS.items():
        if (preset.mean, preset.std) == (preprocess.mean, preprocess.std):
            return name if preset.resize == preprocess.resize else f"{name};resize={preprocess.resize}"
    numbers = f"mean={_numbers(preprocess.mean)};std={_numbers(preprocess.std)}"
    return numbers if preprocess.resize == "stretch" else f"{numbers};resize={preprocess.resize}"


def apply_preprocess(image: Image.Image, height: int, width: int, channels: int, preprocess: Preprocess) -> npt.NDArray[np.float32]:
    """Turn one picture into a network input.

    Args:
        image: any Pillow picture; its EXIF orientation is honoured and transparency is laid on white.
        channels: 3 for red, green, blue; 1 for luma, whose mean and std are the luma-weighted ones of the three.

    Returns:
        float32 [channels, height, width].

    Raises:
        CalibrationError: neither 1 nor 3 channels are wanted, or the picture holds numbers whose range no file format
            states: floating-point ones, or integers beyond 16 bits.
    """
    fitted = _pixels(image, height, width, channels, preprocess.resize)
    return _on_canvas(normalised(fitted, preprocess), height, width)


def normalised(codes: npt.NDArray[np.uint8], preprocess: Preprocess) -> npt.NDArray[np.float32]:
    """Pixel codes [..., 1 or 3 channels] to the same in float32, by mean and standard deviation."""
    mean, std = mean_and_std(preprocess, codes.shape[-1])
    pixels = codes.astype(np.float32) / np.float32(255)
    return np.asarray((pixels - np.asarray(mean, dtype=np.float32)) / np.asarray(std, dtype=np.float32), dtype=np.float32)


def mean_and_std(preprocess: Preprocess, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What is subtracted from pixels of 0..1, and what they are divided by: one number for each of 1 or 3 channels."""
    return (preprocess.mean, preprocess.std) if channels == 3 else ((_luma(preprocess.mean),), (_luma(preprocess.std),))


def picture_codes(image: Image.Image, height: int, width: int, channels: int, resize: Resize) -> npt.NDArray[np.uint8]:
    """Turn one picture into the input of a network that takes pixels as they are and normalises them itself.

    Args:
        image: as for `apply_preprocess`.
        channels: 3 for red, green, blue; 1 for luma.
        resize: resize policy; what ``pad`` adds is black.

    Returns:
        uint8 [channels, height, width], 0..255.

    Raises:
        CalibrationError: as `apply_preprocess`.
    """
    return _on_canvas(_pixels(image, height, width, channels, resize), height, width)


@contextmanager
def open_images(path: Path) -> Iterator[tuple[list[str], Callable[[str], Image.Image]]]:
    """Open the images of a folder, searched recursively, or of a zip, whose entries are read in memory only.

    Yields:
        The sorted names of all image files, and a function that decodes one of them. That raises whatever Pillow and
        zipfile raise for a damaged file, which can be anything.

    Raises:
        CalibrationError: the zip is damaged, a folder cannot be listed, or there is no image.
    """
    if path.is_dir():
        yield _image_names(files_below(path), path), lambda name: _decode(_read_file(path / name))
        return
    with reading("the .zip file cannot be read", path, hint="check the file, or give a folder"):
        archive = zipfile.ZipFile(path)

    def read_entry(name: str) -> Image.Image:
        if archive.getinfo(name).file_size > LARGEST_IMAGE_FILE:
            raise CalibrationError("unpacks to more than an image file ever holds")
        refuse_bomb(archive.getinfo(name), path)
        return _decode(archive.read(name))

    with archive:
        yield _image_names(archive.namelist(), path), read_entry


def _read_file(path: Path) -> bytes:
    if not path.is_file():  # opening a pipe would wait for its writer
        raise CalibrationError("it is no regular file")
    if path.stat().st_size > LARGEST_IMAGE_FILE:
        raise CalibrationError("it is larger than an image file ever is")
    return path.read_bytes()


def _image_names(files: Sequence[str], path: Path) -> list[str]:
    """Those names that stand for images, sorted; hidden files are left out, as file managers put false images there."""
    seen = [name for name in files if not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)]
    names = sorted({name for name in seen if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES})
    if not names:
        what = "there are no images" if seen else "there are no files"
        hint = f"put some 40 pictures there, as the model will meet them; image files end in {' '.join(sorted(IMAGE_SUFFIXES))}"
        raise CalibrationError(what, where=str(path), hint=hint)
    return names


def _decode(data: bytes) -> Image.Image:
    """Decode a picture completely from the bytes of its file."""
    # Named formats only: some of Pillow's others start an outside program.
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:  # whose own text is the address of the buffer
        raise CalibrationError(f"none of the formats {', '.join(FORMATS)}") from error
    if image.width * image.height > LARGEST_IMAGE:
        raise CalibrationError(f"{image.width} by {image.height} pixels, which are too many")
    image.load()
    return image


def _pixels(image: Image.Image, height: int, width: int, channels: int, resize: Resize) -> npt.NDArray[np.uint8]:
    """The picture upright, in its colours and resized: uint8 [rows, columns, channels], smaller than asked for only with ``pad``."""
    if channels not in (1, 3):
        raise CalibrationError(f"a picture gives 1 or 3 channels, not {channels}", hint="use an .npz file with one array per model input")
    upright = _rgb(ImageOps.exif_transpose(image))
    fitted = _fit(upright if channels == 3 else upright.convert("L"), height, width, resize)
    return np.asarray(fitted, dtype=np.uint8).reshape(fitted.height, fitted.width, channels)


def _on_canvas(pixels: npt.NDArray[Number], height: int, width: int) -> npt.NDArray[Number]:
    """[rows, columns, channels] to [channels, height, width], filled up with zeros on the right and at the bottom."""
    canvas = np.zeros((pixels.shape[2], height, width), dtype=pixels.dtype)
    canvas[:, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1)
    return canvas


def _rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as RGB, 8 bits a channel."""
    if image.mode == "F":
        raise CalibrationError("the picture holds floating-point values of unknown range", hint="use an .npz file with the values to feed")
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion clips at 255 instead of scaling
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            what = f"the picture holds integers of unknown range, {levels.min()} to {levels.max()}"
            raise CalibrationError(what, hint="save it with 8 or 16 bits a channel, or use an .npz file with the values to feed")
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _fit(image: Image.Image, height: int, width: int, resize: Resize) -> Image.Image:
    """Resize to the target size; for ``pad`` at the largest size inside it."""
    if resize == "pad":
        scale = min(height / image.height, width / image.width)
        size = (min(width, max(1, round(image.width * scale))), min(height, max(1, round(image.height * scale))))
        return image.resize(size, Image.Resampling.BILINEAR)
    if resize == "crop":
        # Cutting the source first gives the same picture as resizing first, without a huge one in between when the
        # source is a thin strip.
        scale = max(height / image.height, width / image.width)
        kept_width, kept_height = min(image.width, width / scale), min(image.height, height / scale)
        left, top = (image.width - kept_width) / 2, (image.height - kept_height) / 2
        return image.resize((width, height), Image.Resampling.BILINEAR, box=(left, top, left + kept_width, top + kept_height))
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _luma(triple: Triple) -> float:
    """ITU-R 601 luma of a colour, written so that three equal values give exactly that value."""
    red, green, blue = triple
    return red + 0.587 * (green - red) + 0.114 * (blue - red)


def _triple(text: str, value: str) -> Triple:
    """Three numbers, or one for all three."""
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError as error:
        raise _refusal(text, f"'{value}' is not a list of numbers") from error
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise _refusal(text, f"'{value}' has {len(numbers)} numbers where 1 or 3 are needed")
    return numbers[0], numbers[1], numbers[2]


def _numbers(values: Sequence[float]) -> str:
    """Comma-separated numbers that read back exactly; one stands for three equal ones."""
    texts = [repr(float(value)) for value in values]
    return texts[0] if len(set(texts)) == 1 else ",".join(texts)


def _valid() -> str:
    return f"valid: {', '.join(PRESETS)}, or 'mean=R,G,B;std=R,G,B', each optionally with ';resize={'|'.join(RESIZES)}'"


def _refusal(text: str, what: str, tidy: str = "", wrong: str = "", known: Sequence[str] = ()) -> UsageError:
    """Build the error for a bad SPEC, with the whole SPEC respelt when `wrong` is close to a known word."""
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
    hint = f"did you mean --preprocess '{tidy.replace(wrong, near[0], 1)}'? {_valid()}" if near else _valid()
    return UsageError(what, where=f"--preprocess '{text}'", hint=hint)
