from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from converter.calibration.input_shapes import calibration_shapes, parse_input_shape, parse_input_shapes
from converter.errors import CalibrationError, UsageError
from converter.load.model import Source, load
from converter.testing.models import Array, SaveHybrid, make_model

FLOAT = TensorProto.FLOAT
CONSTANT: dict[str, Array] = {"c": np.ones((4, 4), np.float32)}
Shape = tuple[int | str | None, ...]


def source(
    folder: Path,
    inputs: dict[str, Shape],
    nodes: list[tuple[str, list[str], str]],
    constants: dict[str, Array] | None = None,
    **attributes: Any,
) -> Source:
    """A model of a few nodes; its output has the rank of nothing in particular, as the runtime does not mind."""
    made = [helper.make_node(op, read, [write], **attributes) for op, read, write in nodes]
    last = nodes[-1][2]
    rank = len(next(iter(inputs.values())))
    model = make_model(made, [(n, FLOAT, s) for n, s in inputs.items()], [(last, FLOAT, [None] * rank)], initializers=constants)
    (folder / "in.onnx").write_bytes(model.SerializeToString())
    return load(folder / "in.onnx")


def settled(model: Source, given: dict[str, tuple[int, ...]] | None = None, calib: Path | None = None) -> tuple[dict[str, Shape], str]:
    specs, guess = calibration_shapes(model, given or {}, calib, 1)
    return {s.name: s.shape for s in specs}, guess


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x:1,3,48,320", ("x", (1, 3, 48, 320))),
        ("x:1x3x48x320", ("x", (1, 3, 48, 320))),
        ("a:b:0:2,2", ("a:b:0", (2, 2))),
        ("x:7", ("x", (7,))),
    ],
)
def test_shapes_are_parsed(text: str, expected: tuple[str, tuple[int, ...]]) -> None:
    assert parse_input_shape(text) == expected


@pytest.mark.parametrize("text", ["", "x", "x:", ":1,2", "x:1,,2", "x:a,b", "x:0,3", "x:-1,3", "1,3,4,4", "x:1.5"])
def test_texts_that_are_no_shape(text: str) -> None:
    with pytest.raises(UsageError, match="is not a shape") as caught:
        parse_input_shape(text)
    assert caught.value.where == "--input-shape"


def test_an_input_has_one_shape() -> None:
    assert parse_input_shapes(["a:1", "b:2"]) == {"a": (1,), "b": (2,)}
    with pytest.raises(UsageError, match="two shapes"):
        parse_input_shapes(["a:1", "a:2"])


def test_fixed_sizes_need_no_guess(save_hybrid: SaveHybrid) -> None:
    assert settled(load(save_hybrid())) == ({"image": (1, 3, 32, 32)}, "")


def test_an_open_batch_is_one(save_hybrid: SaveHybrid) -> None:
    assert settled(load(save_hybrid(dynamic_batch=True))) == ({"image": (1, 3, 32, 32)}, "")


def test_open_sizes_are_guessed_and_the_guess_is_told(save_hybrid: SaveHybrid) -> None:
    shapes, guess = settled(load(save_hybrid(dynamic_batch=True, dynamic_size=True)))
    assert shapes == {"image": (1, 3, 224, 224)}
    assert "[1, 3, 224, 224]" in guess and "--input-shape" in guess


def test_given_sizes_win(save_hybrid: SaveHybrid) -> None:
    model = load(save_hybrid(dynamic_batch=True, dynamic_size=True))
    assert settled(model, {"image": (2, 3, 48, 64)}) == ({"image": (2, 3, 48, 64)}, "")


def test_the_first_usual_size_that_runs_is_taken(tmp_path: Path) -> None:
    model = source(tmp_path, {"x": (1, 1, "h", "w")}, [("Add", ["x", "c"], "y")], {"c": np.ones((1, 1, 48, 320), np.float32)})
    assert settled(model)[0] == {"x": (1, 1, 48, 320)}


def test_one_symbol_gets_one_size(tmp_path: Path) -> None:
    constants = {"c": np.ones((1, 1, 48, 320), np.float32)}
    model = source(tmp_path, {"x": (1, 1, "s", "s")}, [("Add", ["x", "c"], "y")], constants)
    with pytest.raises(UsageError, match="none of the usual ones runs"):
        settled(model)


def test_a_mask_has_the_size_of_the_picture_it_shares_symbols_with(tmp_path: Path) -> None:
    for mask in (("n", "h", "w"), ("h", "w")):
        inputs: dict[str, Shape] = {"x": ("n", 3, "h", "w"), "mask": mask}
        for order in (inputs, dict(reversed(inputs.items()))):
            model = source(tmp_path, order, [("Relu", ["mask"], "z"), ("Mul", ["x", "z"], "y")], {})
            shapes, guess = settled(model)
            assert shapes["x"] == (1, 3, 224, 224) and shapes["mask"][-2:] == (224, 224) and guess
            shapes, guess = settled(model, {"x": (1, 3, 40, 48)})
            assert shapes["mask"] == {3: (1, 40, 48), 2: (40, 48)}[len(mask)] and guess == ""


def test_a_batch_that_is_given_holds_for_all_inputs_that_share_its_symbol(tmp_path: Path) -> None:
    model = source(tmp_path, {"x": ("n", 4), "z": ("n", 4), "v": ("m", 4)}, [("Add", ["x", "z"], "s"), ("Gemm", ["s", "c"], "y")], CONSTANT)
    assert settled(model, {"x": (3, 4)})[0] == {"x": (3, 4), "z": (3, 4), "v": (1, 4)}
    assert settled(model)[0] == {"x": (1, 4), "z": (1, 4), "v": (1, 4)}


def test_one_word_for_everything_that_is_open_says_nothing(tmp_path: Path) -> None:
    inputs: dict[str, Shape] = {"x": ("None", 3, "None", "None"), "scale": ("None", 1, 1)}
    model = source(tmp_path, inputs, [("Mul", ["x", "scale"], "y")])
    assert settled(model)[0] == {"x": (1, 3, 224, 224), "scale": (1, 1, 1)}
    assert settled(model, {"x": (1, 3, 40, 48)}) == ({"x": (1, 3, 40, 48), "scale": (1, 1, 1)}, "")


def test_channels_last_and_token_inputs(tmp_path: Path) -> None:
    image = source(tmp_path, {"x": ("n", None, None, 3)}, [("Relu", ["x"], "y")])
    assert settled(image)[0] == {"x": (1, 224, 224, 3)}
    tokens = source(tmp_path, {"x": ("n", "length", 8)}, [("Relu", ["x"], "y")])
    assert settled(tokens)[0] == {"x": (1, 16, 8)}


def test_when_nothing_runs_the_flag_to_give_is_spelled_out(tmp_path: Path) -> None:
    model = source(tmp_path, {"x": (1, "t", 3)}, [("MatMul", ["w", "x"], "y")], {"w": np.ones((2, 17), np.float32)})
    with pytest.raises(UsageError) as caught:
        settled(model)
    assert "--input-shape x:1,N,3" in caught.value.hint


def test_contradictions(save_hybrid: SaveHybrid) -> None:
    model = load(save_hybrid(dynamic_batch=True))
    for shape in ((1, 3, 64, 64), (1, 3, 32), (1, 1, 32, 32)):
        with pytest.raises(UsageError, match="contradicts") as caught:
            settled(model, {"image": shape})
        assert "image" in caught.value.where
    with pytest.raises(UsageError, match="no input 'picture'") as caught:
        settled(model, {"picture": (1, 3, 32, 32)})
    assert "'image'" in caught.value.hint


@pytest.mark.parametrize("kind", ["npz", "npy", "misnamed"])
def test_sizes_of_calibration_arrays_are_used(tmp_path: Path, save_hybrid: SaveHybrid, kind: str) -> None:
    model = load(save_hybrid(dynamic_batch=True, dynamic_size=True))
    arrays, path = np.zeros((5, 3, 40, 48), np.float32), tmp_path / f"data.{'npy' if kind == 'npy' else 'npz'}"
    if kind == "npy":
        np.save(path, arrays)
    else:
        by_name: dict[str, Any] = {"image" if kind == "npz" else "anything": arrays}
        np.savez(path, **by_name)
    assert settled(model, calib=path) == ({"image": (1, 3, 40, 48)}, "")


@pytest.mark.parametrize("name", ["data.npz", "data.npy"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY\x01"])
def test_damaged_arrays_are_named_before_anything_is_guessed(tmp_path: Path, save_hybrid: SaveHybrid, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CalibrationError, match="cannot be read") as caught:
        settled(load(save_hybrid(dynamic_batch=True, dynamic_size=True)), calib=tmp_path / name)
    assert str(tmp_path / name) in caught.value.where
    with pytest.raises(CalibrationError, match="no calibration data at this path"):
        settled(load(save_hybrid()), calib=tmp_path / "absent.npz")


def test_a_size_of_zero_is_a_size(tmp_path: Path) -> None:
    model = source(tmp_path, {"x": (1, 2, 8), "past": (1, "past", 8)}, [("Concat", ["past", "x"], "y")], axis=1)
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 2, 8), np.float32), past=np.zeros((4, 0, 8), np.float32))
    assert settled(model, calib=tmp_path / "data.npz") == ({"x": (1, 2, 8), "past": (1, 0, 8)}, "")


def test_arrays_of_another_rank_do_not_help(tmp_path: Path, save_hybrid: SaveHybrid) -> None:
    model = load(save_hybrid(dynamic_batch=True, dynamic_size=True))
    np.save(tmp_path / "data.npy", np.zeros((5, 40), np.float32))
    assert settled(model, calib=tmp_path / "data.npy")[0] == {"image": (1, 3, 224, 224)}


def test_the_source_is_not_changed(save_hybrid: SaveHybrid) -> None:
    model = load(save_hybrid(dynamic_size=True))
    before = dataclasses.replace(model), model.model.SerializeToString()
    settled(model)
    assert (model, model.model.SerializeToString()) == before
