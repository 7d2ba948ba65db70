"""Inputs that become pixels: the numbers behind them are those that the preprocessing would have given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from converter.errors import UsageError
from converter.load.model import load
from converter.load.pixel_inputs import with_pixel_inputs
from converter.runtime.session import run_model
from converter.testing.rewrites import Draft

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def of_colours(channels: int) -> tuple[Sequence[float], Sequence[float]]:
    return (MEAN, STD) if channels == 3 else ((0.25,), (0.5,))


def doubled(**inputs: tuple[int | str, ...]) -> onnx.ModelProto:
    draft = Draft(opset=20, **inputs)
    return draft.model(*[draft.add("Add", name, name) for name in inputs])


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 4, 5), 1), ((2, 4, 5, 3), 3), ((2, 1, 4, 5), 1)])
def test_pixels_are_normalised_along_the_channels(shape: tuple[int, ...], axis: int) -> None:
    source = with_pixel_inputs(load(doubled(x=shape)), of_colours)
    assert [(i.name, str(i.dtype), i.shape) for i in source.inputs] == [("x", "uint8", shape)]
    assert source.model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    mean, std = (np.asarray(n, np.float64).reshape([-1 if place == axis else 1 for place in range(4)]) for n in of_colours(shape[axis]))
    (got,) = run_model(source.model, {"x": pixels}).values()
    np.testing.assert_allclose(got, 2 * (pixels / 255 - mean) / std, rtol=1e-5, atol=1e-5)


def test_other_inputs_and_the_given_model_stay_as_they_are() -> None:
    given = load(doubled(x=(1, 3, 4, 4), y=(1, 8), z=(1, 5, 4, 4)))
    before = given.model.SerializeToString(deterministic=True)
    source = with_pixel_inputs(given, of_colours)
    assert [str(i.dtype) for i in source.inputs] == ["uint8", "float32", "float32"]
    assert given.model.SerializeToString(deterministic=True) == before


def test_a_model_without_pictures_is_refused() -> None:
    with pytest.raises(UsageError, match="no input takes pictures") as caught:
        with_pixel_inputs(load(doubled(x=(1, 8))), of_colours)
    assert (caught.value.where, caught.value.hint) == ("--io uint8", "leave it out; the inputs are x float32[1,8]")
