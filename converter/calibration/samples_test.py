from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from converter.calibration.preprocess import apply_preprocess, parse_preprocess
from converter.calibration.samples import InputSpec, SampleSet
from converter.calibration.testing.sample_files import FLOAT, NCHW, VECTOR, load, refused, saved, write_images, zipped
from converter.errors import CalibrationError, UsageError


def reds(samples: SampleSet) -> tuple[list[int], list[int]]:
    """Which image each sample is, by the red channel that `write_images` paints."""
    return (
        [round(float(feed["x"][0, 0, 0, 0]) * 255) for feed in samples.calibration],
        [round(float(feed["x"][0, 0, 0, 0]) * 255) for feed in samples.held_aside],
    )


# How many are kept


@pytest.mark.parametrize(
    ("found", "count", "calibration", "held"),
    [
        (1, 4, 1, 1),
        (2, 4, 1, 1),
        (4, 4, 3, 1),
        (5, 4, 4, 1),
        (9, 4, 4, 1),
        (9, 8, 8, 1),
        (40, 8, 8, 2),
        (32, 32, 28, 4),
        (99, 80, 80, 16),
        (83, 80, 80, 3),
    ],
)
@pytest.mark.parametrize("source", ["images", "arrays"])
def test_division(tmp_path: Path, source: str, found: int, count: int, calibration: int, held: int) -> None:
    if source == "images":
        samples = load(write_images(tmp_path / "set", found), NCHW, count=count)
    else:
        samples = load(saved(tmp_path / "a.npz", v=np.arange(2 * found, dtype=np.float32).reshape(found, 2)), VECTOR, count=count)
    assert (len(samples.calibration), len(samples.held_aside)) == (calibration, held)
    assert samples.shared == (found == 1)
    assert samples.kind == source
    together = [feed[name].tobytes() for feed in (*samples.calibration, *samples.held_aside) for name in feed]
    assert len(set(together)) == (1 if samples.shared else calibration + held)


# Images


def test_images_are_preprocessed_as_asked(tmp_path: Path) -> None:
    Image.effect_noise((20, 10), 80).convert("RGB").save(tmp_path / "one.png")
    samples = load(tmp_path, NCHW, spec="imagenet")
    expected = apply_preprocess(Image.open(tmp_path / "one.png"), 6, 8, 3, parse_preprocess("imagenet"))
    np.testing.assert_array_equal(samples.calibration[0]["x"], expected[np.newaxis])
    assert samples.calibration[0]["x"].dtype == np.float32
    assert "preprocessing imagenet" in samples.description
    assert "1 sample for calibration and checking alike" in samples.description
    assert "preprocessing unit" in load(tmp_path, NCHW).description
    assert str(tmp_path) not in samples.description


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 3, 6, 8), "float32"),
        ((None, 6, 8, 3), "float32"),
        ((1, 1, 6, 8), "float64"),
        ((1, 6, 8, 1), "float16"),
        ((None, 3, 6, 3), "float32"),
    ],
)
def test_layouts_and_types(tmp_path: Path, shape: tuple[int | None, ...], dtype: str) -> None:
    samples = load(write_images(tmp_path, 3), InputSpec("x", shape, np.dtype(dtype)))
    row = samples.calibration[0]["x"]
    assert row.shape == (1, *shape[1:])
    assert row.dtype == dtype
    assert row.flags.c_contiguous


def test_channels_last_holds_the_same_picture(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    first = load(tmp_path, NCHW).calibration[0]["x"]
    last = load(tmp_path, InputSpec("x", (1, 6, 8, 3), FLOAT)).calibration[0]["x"]
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)


def test_zip_and_folder_give_the_same_samples(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "set", 12, classes=3)
    assert load(folder, NCHW).digest == load(zipped(folder), NCHW).digest


def test_choice_is_seeded_and_even_over_sorted_classes(tmp_path: Path) -> None:
    folder = write_images(tmp_path, 200, classes=4)
    first, again, other = (load(folder, NCHW, count=40, seed=seed) for seed in (1, 1, 2))
    assert first.digest == again.digest != other.digest
    calibration, held = reds(first)
    assert len({*calibration, *held}) == 50
    by_class = np.bincount([red % 4 for red in calibration], minlength=4)
    assert by_class.min() >= 4


def test_a_smaller_count_takes_the_first_of_the_same_choice(tmp_path: Path) -> None:
    folder = write_images(tmp_path, 30)
    assert reds(load(folder, NCHW, count=5))[0] == reds(load(folder, NCHW, count=9))[0][:5]


def test_unreadable_images_are_counted_and_replaced(tmp_path: Path) -> None:
    write_images(tmp_path, 8)
    for index in (0, 3):
        (tmp_path / "class0" / f"{index:03}.png").write_bytes(b"not an image")
    whole = (tmp_path / "class0" / "005.png").read_bytes()
    (tmp_path / "class0" / "005.png").write_bytes(whole[:50])
    samples = load(tmp_path, NCHW, count=5)
    calibration, held = reds(samples)
    assert sorted(calibration + held) == [1, 2, 4, 6, 7]
    assert samples.skipped == 3
    assert "3 unreadable skipped, the first is class0/00" in samples.description


def test_how_pictures_were_scaled_is_told_where_nobody_has_said_it(tmp_path: Path) -> None:
    folder, codes = write_images(tmp_path, 6), InputSpec("x", (1, 3, 6, 8), np.dtype(np.uint8))
    (sentence,) = load(folder, NCHW).assumed
    assert "scaled to 0..1" in sentence and "--preprocess" in sentence
    assert load(folder, NCHW, spec="unit").assumed == load(folder, codes).assumed == load(None, NCHW).assumed == ()


def test_images_beyond_those_needed_are_never_decoded(tmp_path: Path) -> None:
    before = load(write_images(tmp_path, 30), NCHW)
    used = [red for part in reds(before) for red in part]
    for index in set(range(30)) - set(used):
        (tmp_path / "class0" / f"{index:03}.png").write_bytes(b"not an image")
    after = load(tmp_path, NCHW)
    assert after.skipped == 0
    assert after.digest == before.digest


def test_only_unreadable_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no")
    (tmp_path / "b.jpg").write_bytes(b"")
    error = refused(tmp_path, NCHW)
    assert isinstance(error, CalibrationError)
    assert "none of the 2 images can be read" in error.what


@pytest.mark.parametrize(
    "inputs",
    [
        [VECTOR],
        [InputSpec("x", (1, 4, 6, 8), FLOAT)],
        [InputSpec("x", (1, 3, 6, 8), np.dtype(np.int32))],
        [InputSpec("x", (1, 3, 0, 8), FLOAT)],
        [NCHW, InputSpec("y", (1, 3, 6, 8), FLOAT)],
        [NCHW, InputSpec("y", (1, 6, 8, 1), np.dtype(np.uint8)), VECTOR],
    ],
)
def test_images_need_exactly_one_input_that_takes_pictures(tmp_path: Path, inputs: list[InputSpec]) -> None:
    error = refused(write_images(tmp_path, 2), *inputs)
    assert isinstance(error, CalibrationError)
    assert ".npz" in error.hint
    assert all(str(spec) in error.hint for spec in inputs)


def test_fixed_batch_stacks_images(tmp_path: Path) -> None:
    write_images(tmp_path, 23)
    samples = load(tmp_path, InputSpec("x", (4, 3, 6, 8), FLOAT), count=10)
    assert [feed["x"].shape for feed in samples.calibration] == [(4, 3, 6, 8)] * 3
    assert len(samples.held_aside) == 1
    error = refused(write_images(tmp_path / "few", 3), InputSpec("x", (32, 3, 6, 8), FLOAT))
    assert "32 images at a time" in error.what


# Sources that cannot be used


def test_missing_empty_and_foreign_sources(tmp_path: Path) -> None:
    assert "no calibration data" in refused(tmp_path / "nowhere", NCHW).what
    (tmp_path / "empty").mkdir()
    assert "there are no files" in refused(tmp_path / "empty", NCHW).what
    (tmp_path / "empty" / "notes.txt").write_text("hello")
    assert "there are no images" in refused(tmp_path / "empty", NCHW).what
    assert ".npz" in refused(tmp_path / "empty" / "notes.txt", NCHW).hint


@pytest.mark.parametrize("name", ["a.zip", "a.npz", "a.npy"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x93NUMPY\x01\x00\xff\xff", b"garbage"])
def test_corrupt_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    error = refused(tmp_path / name, NCHW)
    assert isinstance(error, CalibrationError)
    assert "cannot be read" in error.what
    assert name in error.where


def test_truncated_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.zeros((4, 2), np.float32))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-4])
    assert "cannot be read" in refused(tmp_path / "cut.npy", VECTOR).what


def test_encrypted_or_damaged_zip_entries_count_as_unreadable(tmp_path: Path) -> None:
    path = zipped(write_images(tmp_path / "set", 3))
    data = bytearray(path.read_bytes())
    start = data.index(b"IDAT")
    data[start] ^= 0xFF  # the checksum of this entry no longer fits
    path.write_bytes(bytes(data))
    assert load(path, NCHW).skipped == 1


def test_object_arrays_are_never_unpickled(tmp_path: Path) -> None:
    tensor_sample = tmp_path / "tensor_sample"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tensor_sample,))

    trap = np.array([Trap()], dtype=object)
    np.save(tmp_path / "a.npy", trap)
    np.savez(tmp_path / "a.npz", v=trap)
    for name in ("a.npy", "a.npz"):
        error = refused(tmp_path / name, VECTOR)
        assert "Python objects are not accepted" in error.hint
    assert not tensor_sample.exists()


# Usage


def test_open_sizes_other_than_the_batch() -> None:
    error = refused(None, InputSpec("x", (None, 3, None, 320), FLOAT))
    assert isinstance(error, UsageError)
    assert "--input-shape x:1,3,224,320" in error.hint
    assert "--input-shape x:1,0,224" in refused(None, InputSpec("x", (None, 0, None), FLOAT)).hint


def test_count_and_inputs_must_exist() -> None:
    assert isinstance(refused(None, NCHW, count=0), UsageError)
    assert isinstance(refused(None), CalibrationError)


# Synthetic


def test_synthetic_samples_for_every_kind_of_input() -> None:
    inputs = [
        InputSpec("image", (None, 3, 16, 12), FLOAT),
        InputSpec("tokens", (1, 5), np.dtype(np.int64)),
        InputSpec("flag", (), np.dtype(np.bool_)),
        InputSpec("noise", (1, 7), np.dtype(np.float16)),
    ]
    samples = load(None, *inputs, count=8, seed=3)
    assert (samples.kind, len(samples.calibration), len(samples.held_aside)) == ("synthetic", 8, 2)
    for feed in (*samples.calibration, *samples.held_aside):
        assert {name: (array.shape, array.dtype) for name, array in feed.items()} == {
            "image": ((1, 3, 16, 12), FLOAT),
            "tokens": ((1, 5), np.dtype(np.int64)),
            "flag": ((), np.dtype(np.bool_)),
            "noise": ((1, 7), np.dtype(np.float16)),
        }
        assert 0 <= feed["image"].min() < feed["image"].max() <= 1
        assert set(feed["tokens"].ravel().tolist()) <= {0, 1}
    assert "synthetic images, preprocessing unit (no calibration data were given): 8 for calibration, 2 held aside" in samples.description


def test_synthetic_images_take_the_preprocessing_and_the_batch() -> None:
    samples = load(None, InputSpec("x", (2, 8, 8, 3), FLOAT), count=3, spec="symmetric")
    assert [feed["x"].shape for feed in samples.calibration] == [(2, 8, 8, 3)] * 2
    assert samples.calibration[0]["x"].min() < 0
    assert samples.description.endswith("in batches of 2: 2 for calibration, 1 held aside")
    assert "preprocessing symmetric" in samples.description
    assert len({row.tobytes() for feed in (*samples.calibration, *samples.held_aside) for row in feed["x"]}) == 6


@pytest.mark.parametrize("shape", [(None, 3, 16, 12), (2, 16, 12, 3), (1, 1, 16, 12), (1, 16, 12, 1)])
def test_uint8_inputs_get_pictures_as_codes(shape: tuple[int | None, ...]) -> None:
    codes = load(None, InputSpec("x", shape, np.dtype(np.uint8)), count=4, spec="imagenet")
    unit = load(None, InputSpec("x", shape, FLOAT), count=4, spec="unit;resize=crop")
    assert "synthetic images, as pixel codes 0..255 (resize=crop; mean and std do not apply)" in codes.description
    for feed, same in zip(codes.calibration, unit.calibration, strict=True):
        assert feed["x"].dtype == np.uint8
        np.testing.assert_array_equal(feed["x"], np.rint(same["x"] * 255))
    assert max(feed["x"].max() for feed in codes.calibration) > 200


def test_other_integers_and_other_ranks_stay_zeros_and_ones() -> None:
    byte = np.dtype(np.uint8)
    inputs = [InputSpec("p", (1, 3, 4, 4), np.dtype(np.int64)), InputSpec("q", (1, 3, 16), byte), InputSpec("r", (1, 4, 5, 5), byte)]
    for feed in load(None, *inputs).calibration:
        assert all(set(array.reshape(-1).tolist()) == {0, 1} for array in feed.values())


def test_sizes_of_zero_stay_zero() -> None:
    shapes = {"past": (1, 8, 0), "rows": (0, 4), "picture": (1, 3, 0, 8)}
    for dtype in (np.float32, np.uint8):
        (feed, *_) = load(None, *(InputSpec(name, shape, np.dtype(dtype)) for name, shape in shapes.items()), VECTOR).calibration
        assert {name: array.shape for name, array in feed.items()} == {**shapes, "v": (1, 2)}


def test_half_precision_is_the_nearest_to_single_precision() -> None:
    shapes = {"picture": (1, 3, 8, 8), "numbers": (1, 7)}
    (half, *_), (single, *_) = (
        load(None, *(InputSpec(name, shape, np.dtype(dtype)) for name, shape in shapes.items()), spec="imagenet").calibration
        for dtype in (np.float16, np.float32)
    )
    for name in shapes:
        assert half[name].dtype == np.float16
        np.testing.assert_array_equal(half[name], single[name].astype(np.float16))


def test_types_that_cannot_be_made_up() -> None:
    assert "cannot be made up" in refused(None, InputSpec("text", (1, 2), np.dtype(object))).what


def test_synthetic_inputs_of_one_shape_differ() -> None:
    (feed, *_) = load(None, VECTOR, InputSpec("w", (1, 2), FLOAT)).calibration
    assert not np.array_equal(feed["v"], feed["w"])


# Digest


def test_digest_covers_names_types_shapes_and_bytes_of_all_inputs(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", v=np.array([[1, 2]], np.float32), k=np.array([5], np.int64))
    expected = hashlib.sha256()
    expected.update(b"1:k int64 (1,)\n" + (5).to_bytes(8, "little"))
    expected.update(b"1:v float32 (1, 2)\n" + struct.pack("<2f", 1, 2))
    assert load(path, VECTOR, InputSpec("k", (1,), np.dtype(np.int64))).digest == expected.hexdigest()


def test_digest_is_the_same_in_another_process() -> None:
    program = (
        "import numpy as np; from converter.calibration.samples import *;"
        "print(load_samples(None, [InputSpec('x', (None, 3, 6, 8), np.dtype('f4'))], count=4, preprocess=None, seed=0).digest)"
    )
    root = Path(__file__).parents[2]
    printed = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=root, env={"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {load(None, NCHW).digest + "\n"}


@settings(deadline=None, max_examples=30)
@given(row=st.integers(0, 3), column=st.integers(0, 1), change=st.sampled_from([0.5, -1.0, 100.0]), seed=st.integers(0, 9))
def test_digest_sees_every_change_of_a_calibration_sample(row: int, column: int, change: float, seed: int) -> None:
    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    changed = values.copy()
    changed[row, column] += change
    with tempfile.TemporaryDirectory() as folder:
        before = load(saved(Path(folder) / "a.npz", v=values), VECTOR, seed=seed)
        after = load(saved(Path(folder) / "b.npz", v=changed), VECTOR, seed=seed)
        renamed = load(Path(folder) / "a.npz", InputSpec("w", (1, 2), FLOAT), seed=seed)
    was_calibration = any(feed["v"][0, 0] == values[row, 0] for feed in before.calibration)
    assert (after.digest != before.digest) == was_calibration
    assert renamed.digest != before.digest
