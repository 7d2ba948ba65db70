"""Data from which nothing can be learnt, and data that only look like them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from converter.calibration.sample_doubts import doubts, unscaled_pictures
from converter.calibration.samples import InputSpec
from converter.calibration.testing.sample_files import FLOAT, load, saved, write_images
from converter.testing.models import WriteImages

PICTURE = InputSpec("x", (1, 3, 4, 4), FLOAT)
CODES = InputSpec("x", (1, 4, 4, 3), np.dtype(np.uint8))
TOKENS = InputSpec("t", (1, 5), np.dtype(np.int64))
VECTOR = InputSpec("v", (1, 4), FLOAT)


def drawn(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).random(shape).astype(np.float32)


def about(inputs: list[InputSpec], **columns: npt.NDArray[Any]) -> tuple[str, ...]:
    """Doubts about samples that are given one array an input, with the samples in front."""
    count = len(next(iter(columns.values())))
    return doubts([{name: column[i] for name, column in columns.items()} for i in range(count)], inputs)


def test_samples_that_differ_say_something() -> None:
    assert about([PICTURE], x=drawn(3, 1, 3, 4, 4)) == ()
    assert about([CODES], x=np.rint(255 * drawn(3, 1, 4, 4, 3)).astype(np.uint8)) == ()
    assert about([VECTOR], v=drawn(2, 1, 4)) == ()


def test_samples_that_are_all_equal() -> None:
    equal = "all 3 calibration samples are equal: they say nothing about other data"
    picture, tokens = np.repeat(drawn(1, 1, 3, 4, 4), 3, axis=0), np.arange(15).reshape(3, 1, 5)
    assert about([PICTURE], x=picture) == (equal,)
    assert about([PICTURE, TOKENS], x=picture, t=tokens) == (equal,), "tokens do not set ranges"
    assert about([PICTURE, VECTOR], x=picture, v=drawn(3, 1, 4)) == ()
    assert about([TOKENS], t=np.repeat(tokens[:1], 3, axis=0)) == (equal,)
    assert about([TOKENS], t=tokens) == ()
    assert about([PICTURE], x=picture[:1]) == (), "that there is one sample only is told elsewhere"
    assert about([PICTURE, InputSpec("p", (1, 0), FLOAT)], x=drawn(3, 1, 3, 4, 4), p=drawn(3, 1, 0)) == ()


@pytest.mark.parametrize("spec", [PICTURE, CODES, VECTOR])
def test_samples_of_one_number(spec: InputSpec) -> None:
    levels = np.array([0, 200, 100]).reshape(3, *[1] * len(spec.shape))
    (doubt,) = about([spec], **{spec.name: np.broadcast_to(levels, (3, *spec.fed_shape)).astype(spec.dtype)})
    what = "one number only" if spec is VECTOR else "one colour only, as a black picture does"
    assert doubt == f"each calibration sample of input '{spec.name}' holds {what}"


def test_black_is_another_number_in_each_channel_once_it_is_normalised() -> None:
    for spec, axis in ((PICTURE, 2), (InputSpec("x", (1, 4, 4, 3), FLOAT), 4)):
        colours = np.moveaxis(np.broadcast_to(drawn(5, 3), (4, 4, 5, 3)), [2, 3], [0, 1])[:, np.newaxis]  # [5, 1, 3, 4, 4]
        assert len(about([spec], x=np.moveaxis(colours, 2, axis))) == 1


def test_rows_of_a_batch_are_looked_at_one_by_one() -> None:
    spec = InputSpec("x", (2, 3, 4, 4), FLOAT)
    levels = np.arange(6).reshape(3, 2, 1, 1, 1)
    assert len(about([spec], x=np.broadcast_to(levels, (3, *spec.fed_shape)).astype(np.float32))) == 1


def test_constants_beside_pictures_are_usual() -> None:
    """Factors, masks that let everything pass, and single numbers."""
    beside = [InputSpec("factor", (1, 2), FLOAT), InputSpec("mask", (1, 1, 4, 4), FLOAT), InputSpec("one", (1, 1), FLOAT)]
    ones = {spec.name: np.ones((3, *spec.fed_shape), np.float32) for spec in beside}
    assert about([PICTURE, *beside], x=drawn(3, 1, 3, 4, 4), **ones) == ()
    assert about([beside[2], TOKENS], one=drawn(3, 1, 1), t=np.ones((3, 1, 5), np.int64)) == ()


def test_pixel_codes_that_were_scaled() -> None:
    codes = (drawn(3, 1, 4, 4, 3) > 0.5).astype(np.uint8)
    (doubt,) = about([CODES], x=codes)
    assert doubt == "the calibration samples of the uint8 input 'x' never exceed 1: pixel codes reach 255"
    codes[2, 0, 0, 0, 0] = 2
    assert about([CODES], x=codes) == ()
    assert about([InputSpec("x", (1, 48), np.dtype(np.uint8))], x=(drawn(3, 1, 48) > 0.5).astype(np.uint8)) == (), "no picture"


@pytest.mark.parametrize(
    ("most", "told"),
    [(255.0, True), (10.0, False), (256.0, False)],
    ids=["pixels", "small whole numbers", "more than pixels"],
)
def test_pixels_for_an_input_of_float_pictures(most: float, told: bool) -> None:
    pixels = np.rint(most * drawn(3, 1, 3, 4, 4))
    pixels[1, 0, 0, 0, 0] = most
    found = unscaled_pictures([{"x": row} for row in pixels], [PICTURE])
    assert [sentence.partition(",")[0] for sentence in found] == ["arrays for input 'x' hold pixels"] * told


def test_pixels_that_are_scaled_or_belong_there_are_no_matter() -> None:
    pixels = np.rint(255 * drawn(3, 1, 3, 4, 4))
    for spec, values in (
        (PICTURE, pixels / 255),
        (PICTURE, pixels - 128),
        (InputSpec("x", (1, 3, 4, 4), np.dtype(np.uint8)), pixels.astype(np.uint8)),
        (InputSpec("x", (1, 5, 4, 4), FLOAT), np.rint(255 * drawn(3, 1, 5, 4, 4))),
    ):
        assert unscaled_pictures([{"x": row} for row in values], [spec]) == ()


def test_samples_carry_what_is_told_of_pixels(tmp_path: Path) -> None:
    pixels = np.rint(255 * drawn(8, 3, 4, 4))
    (sentence,) = load(saved(tmp_path / "a.npz", x=pixels), PICTURE).assumed
    assert "hold pixels" in sentence
    assert load(saved(tmp_path / "b.npz", x=pixels / 255), PICTURE).assumed == ()


def test_samples_carry_their_doubts(tmp_path: Path, write_images: WriteImages) -> None:
    black = load(saved(tmp_path / "a.npz", x=np.zeros((8, 3, 4, 4), np.float32)), PICTURE, count=6)
    assert [doubt.split(":")[0] for doubt in black.doubts] == [
        "all 6 calibration samples are equal",
        "each calibration sample of input 'x' holds one colour only, as a black picture does",
    ]
    assert load(write_images(tmp_path / "noise"), PICTURE).doubts == ()
    assert load(None, CODES).doubts == ()


def test_single_coloured_images_are_doubted(tmp_path: Path) -> None:
    (doubt,) = load(write_images(tmp_path / "colours", 4), PICTURE, spec="imagenet").doubts
    assert "one colour only" in doubt
