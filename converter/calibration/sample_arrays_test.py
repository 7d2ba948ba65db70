"""Calibration data in NumPy files."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from converter.calibration import array_files
from converter.calibration.samples import InputSpec
from converter.calibration.testing.sample_files import FLOAT, VECTOR, load, refused, saved


def saved_alone(path: Path, array: npt.NDArray[Any]) -> Path:
    np.save(path, array)
    return path


def test_arrays_keep_inputs_together(tmp_path: Path) -> None:
    numbers = np.arange(20)
    path = saved(tmp_path / "a.npz", mask=numbers, v=np.stack([numbers, -numbers], axis=1).astype(np.float32))
    mask, scalar = InputSpec("mask", (None,), np.dtype(np.int64)), InputSpec("mask", (), np.dtype(np.int64))
    for spec, shape in ((mask, (1,)), (scalar, ())):
        samples = load(path, VECTOR, spec, count=8)
        for feed in (*samples.calibration, *samples.held_aside):
            assert list(feed) == ["v", "mask"]
            assert feed["v"].shape == (1, 2)
            assert feed["mask"].shape == shape
            assert feed["v"][0, 0] == feed["mask"].reshape(-1)[0] == -feed["v"][0, 1]


def test_single_array_needs_no_name(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.save(tmp_path / "b.npy", values)
    digests = {load(path, VECTOR).digest for path in (saved(tmp_path / "a.npz", whatever=values), tmp_path / "b.npy")}
    assert len(digests) == 1


def test_fixed_batch_groups_rows(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(12, 2)
    samples = load(saved(tmp_path / "a.npz", v=values), InputSpec("v", (3, 2), FLOAT), count=4)
    assert [feed["v"].shape for feed in samples.calibration] == [(3, 2), (3, 2)]
    assert all(np.array_equal(np.diff(feed["v"][:, 0]), [2, 2]) for feed in samples.calibration)
    assert "multiple of the batch size 5" in refused(tmp_path / "a.npz", InputSpec("v", (5, 2), FLOAT)).what


@pytest.mark.parametrize("expected", ["float16", "float32", "float64"])
def test_any_floating_point_type_fits_a_floating_point_input(tmp_path: Path, expected: str) -> None:
    values = np.arange(12).reshape(6, 2) / 8
    for number, dtype in enumerate(["float16", "float32", "float64", ">f8"]):
        samples = load(saved_alone(tmp_path / f"{number}.npy", values.astype(dtype)), InputSpec("v", (1, 2), np.dtype(expected)))
        for feed in (*samples.calibration, *samples.held_aside):
            assert feed["v"].dtype == expected
            assert feed["v"][0].tolist() in values.tolist()


def test_only_the_chosen_rows_are_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an archive of 16 MB five rows of 16 KB and a block. One that stores columns one after the other gives the same."""
    monkeypatch.setattr(array_files, "_BLOCK", 1 << 20)
    values = np.arange(1 << 22, dtype=np.float32).reshape(1024, -1)
    path, spec = saved(tmp_path / "a.npz", v=values), InputSpec("v", (1, values.shape[1]), FLOAT)
    np.savez(tmp_path / "b.npz", v=np.asfortranarray(values))
    tracemalloc.start()
    samples = load(path, spec, count=4)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8e6
    assert load(tmp_path / "b.npz", spec, count=4).digest == samples.digest
    for feed in (*samples.calibration, *samples.held_aside):
        assert np.array_equal(feed["v"][0], values[int(feed["v"][0, 0]) // values.shape[1]])


def test_inputs_without_elements_need_no_data(tmp_path: Path) -> None:
    """As the keys of the past are at a first step: of length 0, or of no row at all."""
    past, none = InputSpec("past", (1, 8, 0), FLOAT), InputSpec("none", (0, 2), np.dtype(np.int64))
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    given = {"past": np.zeros((6, 8, 0), np.float32), "none": np.zeros((0, 2), np.int64)}
    digests = set()
    for number, (arrays, inputs) in enumerate([({}, (VECTOR, past, none)), (given, (past, none, VECTOR)), (given, (none, VECTOR, past))]):
        samples = load(saved(tmp_path / f"{number}.npz", v=values, **arrays), *inputs)
        assert (len(samples.calibration), len(samples.held_aside)) == (4, 1)
        for feed in samples.calibration:
            assert list(feed) == [spec.name for spec in inputs]
            assert (feed["past"].shape, feed["none"].shape, feed["v"].shape) == ((1, 8, 0), (0, 2), (1, 2))
        digests.add(samples.digest)
    assert len(digests) == 1
    assert len(load(saved_alone(tmp_path / "a.npy", values), VECTOR, past).calibration) == 4
    assert "[N,8,0]" in refused(saved(tmp_path / "b.npz", v=values, past=np.zeros((6, 8, 5), np.float32)), VECTOR, past).what
    assert load(saved(tmp_path / "c.npz"), past).shared


def test_safe_casts_and_byte_orders(tmp_path: Path) -> None:
    values = np.arange(12).reshape(6, 2)
    plain = load(saved(tmp_path / "a.npz", v=values.astype(np.float32)), VECTOR).digest
    for number, dtype in enumerate(["float64", ">f4", ">f8"]):
        samples = load(saved(tmp_path / f"{number}.npz", v=values.astype(dtype)), VECTOR)
        assert samples.digest == plain
        assert samples.calibration[0]["v"].dtype == np.float32
        assert samples.calibration[0]["v"].dtype.isnative
    wide = load(saved(tmp_path / "i.npz", v=values.astype(np.int32)), InputSpec("v", (1, 2), np.dtype(np.int64)))
    assert wide.calibration[0]["v"].dtype == np.int64


@pytest.mark.parametrize(
    ("found", "expected"), [("uint8", "float32"), ("int64", "float32"), ("int64", "float16"), ("float32", "int64"), ("int64", "int32")]
)
def test_other_types_are_refused(tmp_path: Path, found: str, expected: str) -> None:
    error = refused(saved(tmp_path / "a.npz", v=np.zeros((4, 2), found)), InputSpec("v", (1, 2), np.dtype(expected)))
    assert error.what == f"expected {expected}, found {found}"
    assert "input v" in error.where


@pytest.mark.parametrize("shape", [(4, 3), (2,), (4, 1, 2), (4,), (4, 2, 1)])
def test_wrong_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    error = refused(saved(tmp_path / "a.npz", v=np.zeros(shape, np.float32)), VECTOR)
    assert error.what == f"expected shape [N,2], found {list(shape)}"
    assert "input v" in error.where


def test_no_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((0, 2), np.float32))
    assert "found 0" in refused(tmp_path / "a.npy", VECTOR).what
    assert "found 0" in refused(saved(tmp_path / "a.npz", v=np.zeros((0, 2), np.float32)), VECTOR).what


@pytest.mark.parametrize("blocks", ["one", "many"])
@pytest.mark.parametrize(
    ("bad", "dtype", "what"),
    [(np.nan, "float32", "NaN"), (1e300, "float32", "beyond float32"), (-1e300, "float32", "beyond"), (7e4, "float16", "beyond float16")],
)
def test_numbers_that_cannot_be_fed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float, dtype: str, what: str, blocks: str
) -> None:
    if blocks == "many":
        monkeypatch.setattr(array_files, "_BLOCK", 64)
    values = np.zeros((40, 2))
    values[37, 1] = bad
    for path in (saved(tmp_path / "a.npz", v=values), saved_alone(tmp_path / "a.npy", values)):
        for batch in (1, 4):
            error = refused(path, InputSpec("v", (batch, 2), np.dtype(dtype)))
            assert what in error.what
            assert error.where.endswith("sample 37")


@pytest.mark.parametrize("infinity", [np.inf, -np.inf])
def test_masks_may_hold_infinity_and_colours_may_not(tmp_path: Path, infinity: float) -> None:
    values = np.zeros((2, 1, 3, 3), np.float32)
    values[:, 0, 0, 2] = infinity
    for shape in ((1, 1, 3, 3), (1, 9)):
        samples = load(saved(tmp_path / "a.npz", mask=values.reshape(2, *shape[1:])), InputSpec("mask", shape, FLOAT))
        assert [feed["mask"].reshape(-1)[2] for feed in samples.calibration] == [infinity]
    error = refused(saved(tmp_path / "b.npz", x=np.repeat(values, 3, axis=1)), InputSpec("x", (1, 3, 3, 3), FLOAT))
    assert error.what == "the pictures hold infinity"
    assert error.where.endswith("sample 0")


def test_missing_and_extra_arrays(tmp_path: Path) -> None:
    values = np.zeros((4, 2), np.float32)
    missing = refused(saved(tmp_path / "a.npz", pixel_value=values, other=values), InputSpec("pixel_values", (1, 2), FLOAT), VECTOR)
    assert "no array for the input 'pixel_values'" in missing.what
    assert "pixel_value;" in missing.hint
    extra = refused(saved(tmp_path / "b.npz", v=values, w=values), VECTOR)
    assert "the model has no input for: w" in extra.what
    assert "no array for the input 'v'" in refused(saved(tmp_path / "c.npz"), VECTOR).what
    np.save(tmp_path / "d.npy", values)
    assert "no array for" in refused(tmp_path / "d.npy", VECTOR, InputSpec("w", (1, 2), FLOAT)).what


def test_different_numbers_of_samples(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", v=np.zeros((4, 2), np.float32), w=np.zeros((5, 2), np.float32))
    error = refused(path, VECTOR, InputSpec("w", (1, 2), FLOAT))
    assert "different numbers" in error.what
    assert "'w': 5" in error.hint
