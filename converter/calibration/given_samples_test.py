"""Samples from a program's memory: what is taken, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from converter.calibration.given_samples import given_arrays
from converter.calibration.input_specs import InputSpec
from converter.calibration.preprocess import apply_preprocess, parse_preprocess
from converter.calibration.samples import SampleSet, load_samples
from converter.errors import CalibrationError
from converter.load.model import ValueInfo

FLOAT, BYTE = np.dtype(np.float32), np.dtype(np.uint8)
PICTURE = ValueInfo("x", FLOAT, ("n", 3, 4, 6))
ROWS = np.random.default_rng(0).standard_normal((6, 3, 4, 6)).astype(np.float32)


def load(items: Any, *inputs: ValueInfo, samples: int = 32, spec: str | None = None) -> SampleSet:
    specs = [InputSpec(v.name, tuple(d if isinstance(d, int) else 1 for d in v.shape), v.dtype) for v in inputs]
    store = given_arrays(items, inputs, samples)
    return load_samples(store, specs, count=samples, preprocess=None if spec is None else parse_preprocess(spec), seed=0)


def same(one: SampleSet, other: SampleSet) -> bool:
    return one.digest == other.digest and len(one.held_aside) == len(other.held_aside)


@pytest.mark.parametrize(
    "items",
    [
        ROWS,
        list(ROWS),
        [row[np.newaxis] for row in ROWS],
        [ROWS[:4], ROWS[4:]],
        ({"x": row} for row in ROWS),
        [torch.from_numpy(row) for row in ROWS],
    ],
    ids=["one array", "rows", "batches of one", "batches", "dicts", "tensors"],
)
def test_all_ways_to_give_samples_are_as_good_as_a_file(items: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    from_file = load_samples(tmp_path / "x.npy", [InputSpec("x", (1, 3, 4, 6), FLOAT)], count=32, preprocess=None, seed=0)
    samples = load(items, PICTURE)
    assert same(samples, from_file) and samples.description.startswith("given arrays (6 found), used as they are: 5 for calibration")


def counted(taken: list[int]) -> Iterator[npt.NDArray[Any]]:
    """Endless, and it remembers what was taken."""
    for index in itertools.count():
        taken.append(index)
        yield np.full((3, 4, 6), index, np.float32)


@pytest.mark.parametrize(("batch", "samples", "taken"), [("n", 5, 5), (1, 5, 5), (4, 5, 8)])
def test_no_more_are_taken_than_asked_for_in_whole_batches(batch: int | str, samples: int, taken: int) -> None:
    seen: list[int] = []
    given_arrays(counted(seen), [ValueInfo("x", FLOAT, (batch, 3, 4, 6))], samples)
    assert seen == list(range(taken))


def test_rows_of_a_batch_beyond_the_number_are_left_out() -> None:
    assert given_arrays([ROWS], [PICTURE], 4).arrays["x"].shape == (4, 3, 4, 6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_pixel_codes_are_scaled_for_inputs_of_float_pictures(channels_last: bool) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
    shape = ("n", 4, 6, 3) if channels_last else ("n", 3, 4, 6)
    samples = load(pictures if channels_last else pictures.transpose(0, 3, 1, 2), ValueInfo("x", FLOAT, shape), spec="imagenet")
    preprocess = parse_preprocess("imagenet;resize=stretch")
    expected = [apply_preprocess(Image.fromarray(picture), 4, 6, 3, preprocess)[np.newaxis] for picture in pictures]
    found = [feed["x"].transpose(0, 3, 1, 2) if channels_last else feed["x"] for feed in (*samples.calibration, *samples.held_aside)]
    assert sorted(map(np.ndarray.tobytes, map(np.ascontiguousarray, found))) == sorted(map(np.ndarray.tobytes, expected))
    assert "preprocessing imagenet" in samples.description


def test_pixel_codes_stay_what_they_are_for_inputs_that_take_them() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), np.uint8)
    samples = load(codes, ValueInfo("x", BYTE, (1, 3, 4, 6)))
    assert samples.calibration[0]["x"].dtype == BYTE and "used as they are" in samples.description


def test_several_inputs_take_dicts_and_numbers_need_no_axis() -> None:
    inputs = [PICTURE, ValueInfo("factor", FLOAT, ()), ValueInfo("length", np.dtype(np.int64), ("n",))]
    samples = load([{"x": row, "factor": 0.5, "length": 3} for row in ROWS], *inputs)
    feed = samples.calibration[0]
    assert {name: array.shape for name, array in feed.items()} == {"x": (1, 3, 4, 6), "factor": (), "length": (1,)}


TWO = (PICTURE, ValueInfo("y", FLOAT, ("n", 2)))


@pytest.mark.parametrize(
    ("items", "inputs", "what"),
    [
        ([], (PICTURE,), "are empty"),
        (7, (PICTURE,), "int gives no samples"),
        ([np.zeros((4, 6), np.float32)], (PICTURE,), r"input 'x' has shape \[4, 6\]"),
        ([np.zeros((3, 4, 7), np.float32)], (PICTURE,), r"input 'x' has shape \[3, 4, 7\]"),
        ([np.zeros((0, 3, 4, 6), np.float32)], (PICTURE,), r"input 'x' has shape \[0, 3, 4, 6\]"),
        ([(ROWS[0], 7)], (PICTURE,), "input 'x' is no array"),
        (["cat.png"], (PICTURE,), "input 'x' is no array of numbers: str"),
        ([ROWS[0], ROWS[1].astype(np.float64)], (PICTURE,), r"differ: float32\[3, 4, 6\] and float64\[3, 4, 6\]"),
        ([ROWS[0]], TWO, "several inputs, and a sample is no dict"),
        ([{"z": ROWS[0]}], TWO, "arrays for z"),
        ([{"x": ROWS[0], "y": np.zeros(2)}, {"x": ROWS[0]}], TWO, "arrays for x"),
        ([{"x": ROWS[0]}], TWO, "no array for the input 'y'"),
        ([ROWS[0] * np.nan], (PICTURE,), "hold NaN"),
        ([np.zeros((5,), np.uint8)], (ValueInfo("v", FLOAT, ("n", 5)),), "expected float32, found uint8"),
    ],
)
def test_what_is_refused_and_what_was_expected(items: Any, inputs: tuple[ValueInfo, ...], what: str) -> None:
    with pytest.raises(CalibrationError, match=what) as caught:
        load(items, *inputs)
    assert "given calibration data" in str(caught.value) and caught.value.hint
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("given", "wanted", "axes"),
    [
        ((4, 6, 3), ("n", 3, 4, 6), (2, 0, 1)),
        ((1, 4, 6, 3), ("n", 3, 4, 6), (0, 3, 1, 2)),
        ((3, 4, 6), ("n", 4, 6, 3), (1, 2, 0)),
        ((9, 7, 3), ("n", 3, "h", "w"), (2, 0, 1)),
    ],
)
def test_pictures_whose_channels_stand_elsewhere_are_told_the_transpose(given: Any, wanted: Any, axes: tuple[int, ...]) -> None:
    with pytest.raises(CalibrationError, match="has shape") as caught:
        load([np.zeros(given, np.float32)], ValueInfo("x", FLOAT, wanted))
    assert caught.value.hint.endswith(f"takes each sample after .transpose{axes}")
