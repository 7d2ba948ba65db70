"""Calibration data in NumPy files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converter.samples import InputSpec
from converter.samples_test import FLOAT, VECTOR, load, refused, saved


def test_arrays_keep_inputs_together(tmp_path: Path) -> None:
    numbers = np.arange(20)
    path = saved(tmp_path / "a.npz", mask=numbers, v=np.stack([numbers, -numbers], axis=1).astype(np.float32))
    mask, scalar = InputSpec("mask", (None,), np.dtype(np.int64)), InputSpec("mask", (), np.dtype(np.int64))
    for spec, shape in ((mask, (1,)), (scalar, ())):
        samples = load(path, VECTOR, spec, count=8)
        for feed in samples.calibration + samples.held_aside:
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
    ("found", "expected"), [("uint8", "float32"), ("int64", "float32"), ("float32", "float16"), ("float32", "int64"), ("int64", "int32")]
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


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_are_not_finite_are_named(tmp_path: Path, bad: float) -> None:
    values = np.zeros((40, 2))
    values[37, 1] = bad
    error = refused(saved(tmp_path / "a.npz", v=values), VECTOR)
    assert "NaN or infinity" in error.what
    assert error.where.endswith("sample 37")
    assert refused(tmp_path / "a.npz", InputSpec("v", (4, 2), FLOAT)).where.endswith("sample 37")


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
