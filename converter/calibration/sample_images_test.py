"""Images beside other inputs, and images for inputs of pixel codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converter.calibration.preprocess import parse_preprocess, picture_codes
from converter.calibration.samples import InputSpec
from converter.calibration.testing.sample_files import FLOAT, NCHW, load, write_images, zipped

BYTE = np.dtype(np.uint8)


@pytest.mark.parametrize("spec", ["imagenet", "unit", "symmetric;resize=pad", None])
@pytest.mark.parametrize("shape", [(1, 3, 6, 8), (None, 6, 8, 3), (1, 1, 6, 8), (1, 6, 8, 1)])
def test_pixel_codes_are_fed_as_they_are(tmp_path: Path, shape: tuple[int | None, ...], spec: str | None) -> None:
    Image.effect_noise((20, 10), 80).convert("RGB").save(tmp_path / "one.png")
    samples = load(tmp_path, InputSpec("x", shape, BYTE), spec=spec)
    channels_last = shape[1] == 6
    resize = parse_preprocess(spec or "unit").resize
    expected = picture_codes(Image.open(tmp_path / "one.png"), 6, 8, 1 if 1 in shape[1:] else 3, resize)
    row = samples.calibration[0]["x"]
    assert row.dtype == np.uint8 and row.flags.c_contiguous
    np.testing.assert_array_equal(row[0], expected.transpose(1, 2, 0) if channels_last else expected)
    assert f"pixel codes 0..255 (resize={resize}; mean and std do not apply)" in samples.description


def test_other_inputs_are_made_up_and_told(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "set", 5)
    beside = [
        InputSpec("mask", (1, 6, 8), np.dtype(np.bool_)),
        InputSpec("sizes", (1, 2), np.dtype(np.int64)),
        InputSpec("labels", (1, 4), np.dtype(np.int32)),
        InputSpec("factor", (), FLOAT),
        InputSpec("half", (None, 2), np.dtype(np.float16)),
        InputSpec("past", (1, 0, 4), FLOAT),
    ]
    expected = {
        "mask": np.ones((1, 6, 8), np.bool_),
        "sizes": np.array([[6, 8]], np.int64),
        "labels": np.ones((1, 4), np.int32),
        "factor": np.ones((), np.float32),
        "half": np.ones((1, 2), np.float16),
        "past": np.ones((1, 0, 4), np.float32),
    }
    alone = load(folder, NCHW)
    for path in (folder, zipped(folder)):
        samples = load(path, *beside[:2], NCHW, *beside[2:])
        assert len(samples.calibration) == len(alone.calibration)
        for feed, plain in zip(samples.calibration, alone.calibration, strict=True):
            np.testing.assert_array_equal(feed["x"], plain["x"])
            assert list(feed) == ["mask", "sizes", "x", "labels", "factor", "half", "past"]
            for name, array in expected.items():
                assert feed[name].dtype == array.dtype
                np.testing.assert_array_equal(feed[name], array, strict=True)
        (beside_pictures,) = samples.assumed[1:]
        assert beside_pictures == (
            "made up beside the pictures: mask = ones; sizes = height and width of the picture (6, 8); labels = ones; factor = ones; "
            "half = ones; an .npz with an array for each input decides otherwise"
        )
        assert samples.doubts == alone.doubts
    assert alone.assumed == samples.assumed[:1] and "scaled to 0..1" in alone.assumed[0]


def test_a_plane_that_is_no_picture_by_its_type_is_made_up(tmp_path: Path) -> None:
    samples = load(write_images(tmp_path, 3), NCHW, InputSpec("mask", (1, 1, 6, 8), np.dtype(np.int64)))
    assert samples.calibration[0]["mask"].min() == 1
    assert "mask = ones" in samples.assumed[1]


def test_the_batch_is_that_of_the_pictures(tmp_path: Path) -> None:
    sizes = InputSpec("sizes", (2, 2), np.dtype(np.int64))
    samples = load(write_images(tmp_path, 9), sizes, InputSpec("x", (4, 3, 6, 8), FLOAT), count=4)
    assert [feed["x"].shape for feed in samples.calibration] == [(4, 3, 6, 8)]
    assert samples.calibration[0]["sizes"].tolist() == [[6, 8], [6, 8]]
    assert "in batches of 4" in samples.description
