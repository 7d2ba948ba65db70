from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from converter.calibration.preprocess import (
    PRESETS,
    READS_AVIF,
    Preprocess,
    Resize,
    apply_preprocess,
    open_images,
    parse_preprocess,
    picture_codes,
    spec_text,
)
from converter.errors import CalibrationError, UsageError

UNIT = PRESETS["unit"]
MEANS = st.tuples(*[st.floats(-10, 10)] * 3)
STDS = st.tuples(*[st.floats(1e-6, 10)] * 3)
RESIZES = st.sampled_from(["stretch", "crop", "pad"])


def gradient(height: int, width: int) -> Image.Image:
    down, across = np.linspace(0, 200, height)[:, None], np.linspace(0, 55, width)[None, :]
    plane = np.rint(down + across).astype(np.uint8)
    return Image.fromarray(np.stack([plane, 255 - plane, plane // 2], axis=2))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def levels(row: npt.NDArray[np.float32]) -> list[int]:
    return [int(value) for value in np.rint(row.reshape(-1) * 255)]


@given(mean=MEANS, std=STDS, resize=RESIZES)
def test_spec_text_reads_back_exactly(mean: tuple[float, float, float], std: tuple[float, float, float], resize: Resize) -> None:
    preprocess = Preprocess(mean, std, resize)
    assert parse_preprocess(spec_text(preprocess)) == preprocess


@given(name=st.sampled_from(sorted(PRESETS)), resize=RESIZES)
def test_presets_with_any_resize_read_back_by_name(name: str, resize: Resize) -> None:
    preprocess = parse_preprocess(f"{name};resize={resize}")
    assert (preprocess.mean, preprocess.std, preprocess.resize) == (PRESETS[name].mean, PRESETS[name].std, resize)
    assert spec_text(preprocess).startswith(name)
    assert parse_preprocess(spec_text(preprocess)) == preprocess


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("imagenet", Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "crop")),
        ("unit", Preprocess((0, 0, 0), (1, 1, 1), "stretch")),
        (" Symmetric ", Preprocess((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "stretch")),
        ("mean=0.5;std=0.25", Preprocess((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "stretch")),
        ("std=1,2,3 mean=.1,.2,.3 resize=crop", Preprocess((0.1, 0.2, 0.3), (1, 2, 3), "crop")),
        ("mean = 0.1, 0.2, 0.3 ; std = 1 ; resize = pad", Preprocess((0.1, 0.2, 0.3), (1, 1, 1), "pad")),
        ("mean=0;std=0.00392156862745098;", Preprocess((0, 0, 0), (1 / 255, 1 / 255, 1 / 255), "stretch")),
    ],
)
def test_specs(text: str, expected: Preprocess) -> None:
    assert parse_preprocess(text) == expected


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("imagnet", "'imagnet' is not a preprocessing", "did you mean --preprocess 'imagenet'?"),
        ("symetric;resize=pad", "'symetric' is not", "did you mean --preprocess 'symmetric;resize=pad'?"),
        ("unit;resize=strech", "'strech' is not a resize policy", "did you mean --preprocess 'unit;resize=stretch'?"),
        ("men=0.5;std=0.5", "'men' is not a part", "did you mean --preprocess 'mean=0.5;std=0.5'?"),
        ("qqq", "'qqq' is not a preprocessing", "valid: imagenet, unit, symmetric"),
        ("", "a preset name, or both mean and std", "valid: imagenet"),
        ("mean=0.5", "both mean and std", "valid:"),
        ("imagenet;mean=0.5", "'imagenet' already says", "valid:"),
        ("unit unit", "given twice", "valid:"),
        ("mean=1;mean=1;std=1", "given twice", "valid:"),
        ("mean=0.5,0.5;std=1", "'0.5,0.5' has 2 numbers where 1 or 3", "valid:"),
        ("mean=a,b,c;std=1", "'a,b,c' is not a list of numbers", "valid:"),
        ("mean=nan;std=1", "finite", "valid:"),
        ("mean=0;std=0", "std must be greater than 0", "0.0"),
        ("mean=127.5;std=127.5", "look like 0..255", "mean=0.5;std=0.5"),
        ("mean=123.675,116.28,103.53;std=58.395,57.12,57.375", "look like 0..255", "mean=0.485,0.456,0.406;std=0.229,0.224,0.225"),
    ],
)
def test_bad_specs_name_the_flag_and_the_nearest_spelling(text: str, what: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_preprocess(text)
    assert what in caught.value.what
    assert "--preprocess" in caught.value.where
    assert hint in caught.value.hint
    assert len(str(caught.value).splitlines()) == 3


def test_normalisation_is_per_channel_and_exact() -> None:
    image = Image.new("RGB", (2, 2), (255, 51, 0))
    row = apply_preprocess(image, 2, 2, 3, Preprocess((0.5, 0.1, 0.25), (0.5, 0.1, 0.5)))
    assert row.dtype == np.float32
    assert row.shape == (3, 2, 2)
    assert row.flags.c_contiguous
    np.testing.assert_allclose(row[:, 0, 0], [1.0, 1.0, -0.5], rtol=0, atol=1e-6)


def test_one_channel_is_luma_with_luma_weighted_normalisation() -> None:
    # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2, and mean = 0.299 * 0.1 + 0.587 * 0.2 + 0.114 * 0.3 = 0.1815
    row = apply_preprocess(Image.new("RGB", (3, 2), (200, 100, 50)), 2, 3, 1, Preprocess((0.1, 0.2, 0.3), (0.5, 0.5, 0.5)))
    assert row.shape == (1, 2, 3)
    np.testing.assert_allclose(row, (124 / 255 - 0.1815) / 0.5, rtol=0, atol=1e-6)


def test_stretch_ignores_the_aspect_ratio() -> None:
    halves = Image.new("RGB", (40, 8), "black")
    halves.paste("white", (20, 0, 40, 8))
    row = apply_preprocess(halves, 4, 4, 3, UNIT)
    # The triangle filter of a tenfold reduction reaches 5 of 10 columns over the edge: an eighth of its weight.
    assert levels(row[0, 2]) == [0, 32, 223, 255]


def test_crop_cuts_the_centre_out() -> None:
    thirds = Image.new("RGB", (24, 8), "red")
    thirds.paste("lime", (8, 0, 16, 8))
    row = apply_preprocess(thirds, 8, 8, 3, parse_preprocess("unit;resize=crop"))
    assert levels(row[:, 4, 4]) == [0, 255, 0]
    assert row[0].max() == 0
    assert row[1].min() == 1


@pytest.mark.parametrize(("height", "width"), [(100, 150), (150, 100), (97, 33), (30, 20)])
def test_crop_equals_resizing_the_shorter_side_first(height: int, width: int) -> None:
    image = gradient(height, width)
    scale = max(32 / height, 48 / width)
    whole = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    left, top = (whole.width - 48) // 2, (whole.height - 32) // 2
    expected = np.asarray(whole.crop((left, top, left + 48, top + 32)), dtype=np.float32).transpose(2, 0, 1) / 255
    row = apply_preprocess(image, 32, 48, 3, parse_preprocess("unit;resize=crop"))
    # Rounding the size of the whole shifts it by up to a pixel, which is a few levels on this gradient.
    one_pixel = 255 / min(32, 48) + 2
    assert np.abs(row - expected).max() * 255 <= one_pixel
    assert np.abs(row - expected).mean() * 255 <= one_pixel / 2


def test_a_thin_strip_is_cropped_without_a_huge_picture_in_between() -> None:
    row = apply_preprocess(Image.new("RGB", (1, 60000), "blue"), 64, 64, 3, parse_preprocess("unit;resize=crop"))
    assert levels(row[:, 0, 0]) == [0, 0, 255]


def test_pad_keeps_the_aspect_and_fills_with_zero_after_normalisation() -> None:
    row = apply_preprocess(Image.new("RGB", (20, 10), "white"), 8, 8, 3, parse_preprocess("symmetric;resize=pad"))
    assert (row[:, :4] == 1).all()
    assert (row[:, 4:] == 0).all()
    tall = apply_preprocess(Image.new("RGB", (10, 20), "white"), 8, 8, 3, parse_preprocess("symmetric;resize=pad"))
    assert (tall[:, :, :4] == 1).all()
    assert (tall[:, :, 4:] == 0).all()


def test_pad_of_a_thin_strip_keeps_one_pixel() -> None:
    row = apply_preprocess(Image.new("RGB", (1, 1000), "white"), 8, 8, 3, parse_preprocess("unit;resize=pad"))
    assert (row[:, :, 0] == 1).all()
    assert (row[:, :, 1:] == 0).all()


def test_exif_orientation_is_honoured() -> None:
    image = Image.new("RGB", (8, 4), "black")
    image.paste("white", (4, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", exif=exif)
    row = apply_preprocess(Image.open(buffer), 8, 4, 3, UNIT)
    assert levels(row[0, :, 0]) == [0, 0, 0, 0, 255, 255, 255, 255]


def test_transparency_is_laid_on_white() -> None:
    half = Image.new("RGBA", (2, 2), (255, 0, 0, 128))
    assert levels(apply_preprocess(half, 1, 1, 3, UNIT)) == [255, 127, 127]
    clear = Image.new("LA", (2, 2), (0, 0))
    assert levels(apply_preprocess(clear, 1, 1, 3, UNIT)) == [255, 255, 255]


def test_palettes_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    assert levels(apply_preprocess(image, 1, 1, 3, UNIT)) == [10, 20, 30]
    image.info["transparency"] = 1
    assert levels(apply_preprocess(image, 1, 1, 3, UNIT)) == [255, 255, 255]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_sixteen_bits_are_scaled_not_clipped(dtype: type[Any]) -> None:
    image = Image.fromarray(np.array([[0, 200, 257, 32896, 65535]], dtype=dtype))
    assert levels(apply_preprocess(image, 1, 5, 1, UNIT)) == [0, 1, 1, 128, 255]


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "YCbCr", "HSV"])
def test_every_other_mode_becomes_rgb(mode: str) -> None:
    row = apply_preprocess(Image.new("RGB", (4, 4), "white").convert(mode), 2, 2, 3, UNIT)
    assert min(levels(row)) >= 254


def test_codes_are_the_pixels_that_preprocessing_starts_from() -> None:
    image = gradient(20, 30)
    for resize in ("stretch", "crop"):
        codes = picture_codes(image, 6, 8, 3, resize)
        assert codes.dtype == np.uint8 and codes.shape == (3, 6, 8) and codes.flags.c_contiguous
        assert levels(apply_preprocess(image, 6, 8, 3, replace(UNIT, resize=resize))) == codes.reshape(-1).tolist()
    padded = picture_codes(Image.new("RGB", (4, 4), (200, 100, 50)), 2, 4, 1, "pad")
    assert padded.tolist() == [[[124, 124, 0, 0], [124, 124, 0, 0]]]


@pytest.mark.parametrize("bad", [65536, 16_777_216, -1])
def test_integers_beyond_16_bits_are_refused_not_clipped(bad: int) -> None:
    image = Image.fromarray(np.array([[0, bad]], dtype=np.int32))
    for read in (lambda: apply_preprocess(image, 1, 2, 1, UNIT), lambda: picture_codes(image, 1, 2, 3, "stretch")):
        with pytest.raises(CalibrationError, match="integers of unknown range") as caught:
            read()
        assert str(bad) in caught.value.what and ".npz" in caught.value.hint


def test_refused_pictures() -> None:
    with pytest.raises(CalibrationError, match="floating-point"):
        apply_preprocess(Image.new("F", (2, 2)), 2, 2, 3, UNIT)
    with pytest.raises(CalibrationError, match="1 or 3 channels, not 4"):
        apply_preprocess(Image.new("RGB", (2, 2)), 2, 2, 4, UNIT)


def test_open_images_sorts_and_skips_hidden_files(tmp_path: Path) -> None:
    for name in ["b/2.PNG", "b/10.png", "a.jpeg", ".hidden.png", "__MACOSX/x.png", "notes.txt"]:
        file = tmp_path / "set" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(Image.new("RGB", (2, 3), "red")))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted((tmp_path / "set").rglob("*.*"), reverse=True):
            archive.write(file, file.relative_to(tmp_path / "set"))
    for source in (tmp_path / "set", tmp_path / "set.zip"):
        with open_images(source) as (names, read):
            assert names == ["a.jpeg", "b/10.png", "b/2.PNG"]
            assert read("b/10.png").size == (2, 3)


@pytest.mark.skipif(not READS_AVIF, reason="Pillow was built without AVIF")
def test_every_format_is_read_under_every_name_it_has(tmp_path: Path) -> None:
    for suffix, kind in {"jfif": "JPEG", "JPG": "JPEG", "avif": "AVIF", "webp": "WEBP"}.items():
        Image.new("RGB", (6, 4), "white").save(tmp_path / f"a.{suffix}", format=kind)
    with open_images(tmp_path) as (names, read):
        assert names == ["a.JPG", "a.avif", "a.jfif", "a.webp"]
        assert all(picture_codes(read(name), 1, 1, 1, "stretch")[0, 0, 0] > 250 for name in names)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("mean=0.5,std=0.25", "mean=0.5;std=0.25"),
        ("mean=.485,.456,.406,std=.229,.224,.225,resize=pad", "mean=.485,.456,.406;std=.229,.224,.225;resize=pad"),
        ("unit, resize=crop", "unit;resize=crop"),
    ],
)
def test_a_comma_may_end_a_term(text: str, same: str) -> None:
    assert parse_preprocess(text) == parse_preprocess(same)
