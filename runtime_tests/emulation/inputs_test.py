from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from converter.errors import ModelError, UsageError
from converter.runtime.session import open_session
from converter.testing.models import Values, hybrid_model, make_model
from runtime_tests.emulation.inputs import Input, file_inputs, model_inputs, read_model, read_samples, seeded_samples

FLOATS, CODES = Input("x", np.dtype(np.float32), (None, 3)), Input("i", np.dtype(np.int64), (2,))


def test_inputs_are_what_has_to_be_fed() -> None:
    node = helper.make_node("Add", ["x", "c"], ["y"])
    values: Values = [("x", TensorProto.FLOAT, ["n", 2]), ("c", TensorProto.FLOAT, [2])]
    model = make_model([node], values, [("y", TensorProto.FLOAT, ["n", 2])], initializers={"c": np.ones(2, np.float32)})
    assert model_inputs(model) == [Input("x", np.dtype(np.float32), (None, 2))]


def test_a_file_in_the_mobile_format_tells_the_same(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["x", "i"], ["y"])
    values: Values = [("x", TensorProto.FLOAT, ["n", 3]), ("i", TensorProto.INT64, [2])]
    model = make_model([node], values, [("y", TensorProto.FLOAT, [2, 3])])
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    open_session(model, threads=1, settings={"session.save_model_format": "ORT"}, optimised_path=tmp_path / "x.ort")
    assert file_inputs(tmp_path / "x.ort") == file_inputs(tmp_path / "x.onnx") == [FLOATS, CODES]
    (tmp_path / "other.ort").write_bytes(b"no model")
    with pytest.raises(ModelError, match="does not load"):
        file_inputs(tmp_path / "other.ort")


def test_noise_is_seeded_and_has_the_right_types() -> None:
    first, again, other = (seeded_samples([FLOATS, CODES], 4, seed) for seed in (0, 0, 1))
    assert {name: (array.shape, array.dtype.name) for name, array in first.items()} == {
        "x": ((4, 1, 3), "float32"),
        "i": ((4, 2), "int64"),
    }
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["x"], other["x"])
    assert set(first["i"].ravel()) == {0, 1}


def test_an_open_size_needs_arrays() -> None:
    with pytest.raises(UsageError, match="open size") as caught:
        seeded_samples(model_inputs(hybrid_model(dynamic_size=True)), 1, 0)
    assert "--inputs" in caught.value.hint


def test_arrays_may_hold_one_sample_or_several(tmp_path: Path) -> None:
    codes = np.array([[3, 4], [5, 6]])
    np.savez(tmp_path / "two.npz", x=np.zeros((2, 5, 3), np.float32), i=codes, more=np.zeros(1))
    two = read_samples(tmp_path / "two.npz", [FLOATS, CODES])
    assert two["x"].shape == (2, 5, 3)
    assert np.array_equal(two["i"], codes)
    np.savez(tmp_path / "one.npz", x=np.zeros((5, 3), np.float32), i=codes[1])
    one = read_samples(tmp_path / "one.npz", [FLOATS, CODES])
    assert one["x"].shape == (1, 5, 3)
    assert np.array_equal(one["i"], codes[1:])


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"x": np.zeros((1, 3), np.float32)}, "there is no array for input 'i'"),
        ({"x": np.zeros((1, 4), np.float32), "i": np.zeros(2, np.int64)}, r"the array for input 'x' is float32\[1, 1, 4\]"),
        ({"x": np.zeros((1, 3)), "i": np.zeros(2, np.int64)}, "the array for input 'x' is float64"),
        ({"x": np.zeros((2, 1, 3), np.float32), "i": np.zeros(2, np.int64)}, "different numbers of samples"),
        ({"x": np.zeros((0, 1, 3), np.float32), "i": np.zeros((0, 2), np.int64)}, "or none"),
    ],
)
def test_arrays_that_do_not_fit_are_explained(arrays: dict[str, Any], what: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError, match=what) as caught:
        read_samples(tmp_path / "a.npz", [FLOATS, CODES])
    assert len(str(caught.value).splitlines()) == 3


def test_files_that_hold_no_arrays_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no arrays")
    np.save(tmp_path / "single.npy", np.zeros(3))
    for name in ("text.npz", "single.npy", "absent.npz"):
        with pytest.raises(UsageError, match="the inputs cannot be read"):
            read_samples(tmp_path / name, [FLOATS])


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").touch()
    for name in ("text.onnx", "empty.onnx", "absent.onnx"):
        with pytest.raises(ModelError) as caught:
            read_model(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 3
