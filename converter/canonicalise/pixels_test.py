"""Pixels that become numbers: the same numbers, from operators whose codes can go on."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.canonicalise.folding.affine import fold_affine
from converter.canonicalise.pixels import take_pixels
from converter.graph.builder import remove_dead
from converter.graph.queries import constant
from converter.runtime.session import run_model
from converter.testing.rewrites import Draft, op_types, weights

IMAGENET = np.array([123.675, 116.28, 103.53]).reshape(1, 3, 1, 1)


def reading(mean: float | np.ndarray, pads: int = 1, reader: str = "Conv") -> ir.Model:
    """uint8 pixels, less a mean, over 58, for a convolution or a Sigmoid."""
    draft = Draft(x=(1, 3, 6, 6))
    numbers = draft.add("Cast", "x", to=1)
    if np.any(mean):
        numbers = draft.add("Sub", numbers, np.asarray(mean, np.float32))
    numbers = draft.add("Mul", numbers, 1 / 58)
    result = draft.add("Conv", numbers, weights(4, 3, 3, 3), pads=[pads] * 4) if reader == "Conv" else draft.add(reader, numbers)
    proto = draft.model(result)
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    del proto.graph.value_info[:]
    proto = onnx.shape_inference.infer_shapes(proto)
    model: ir.Model = ir.from_proto(proto)
    return model


def taken(model: ir.Model) -> ir.Model:
    """Rewritten as in a conversion, with the same numbers."""
    pixels = {"x": np.random.default_rng(0).integers(0, 256, (1, 3, 6, 6), np.uint8)}
    (expected,) = run_model(ir.to_proto(model), pixels).values()
    fold_affine(model)
    assert take_pixels(model)
    remove_dead(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    (got,) = run_model(proto, pixels).values()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    return model


def scales(model: ir.Model) -> list[float]:
    (decoded,) = [n for n in model.graph if n.op_type == "DequantizeLinear"]
    scale = constant(decoded.inputs[1])
    assert scale is not None
    found: list[float] = np.atleast_1d(scale).tolist()
    return found


def subtracted(model: ir.Model) -> float:
    (shift,) = [n for n in model.graph if n.op_type == "Add"]
    (found,) = [a for a in map(constant, shift.inputs) if a is not None]
    return -float(found.item())


@pytest.mark.parametrize(("mean", "pads"), [(0.0, 1), (127.5, 0), (IMAGENET, 0)])
def test_without_a_mean_or_a_border_the_codes_are_the_pixels(mean: float | np.ndarray, pads: int) -> None:
    model = taken(reading(mean, pads))
    assert op_types(ir.to_proto(model)) == ["DequantizeLinear", "Conv"] and scales(model) == [1.0]


@pytest.mark.parametrize(
    ("mean", "whole", "steps"),
    [(128.0, 128, [1.0]), (127.5, 127, [127.5 / 127]), (IMAGENET, 103, [123.675 / 103, 116.28 / 103, 103.53 / 103])],
    ids=["whole", "symmetric", "imagenet"],
)
def test_in_front_of_a_border_the_mean_is_a_whole_number_of_steps(mean: float | np.ndarray, whole: int, steps: list[float]) -> None:
    model = taken(reading(mean))
    assert op_types(ir.to_proto(model)) == ["DequantizeLinear", "Add", "Conv"]
    assert subtracted(model) == whole
    np.testing.assert_allclose(scales(model), 1 / np.array(steps), rtol=1e-6)


def test_one_mean_of_all_channels_is_taken_in_front_of_any_reader() -> None:
    model = taken(reading(127.5, reader="Sigmoid"))
    assert op_types(ir.to_proto(model)) == ["DequantizeLinear", "Add", "Mul", "Sigmoid"]


@pytest.mark.parametrize(
    "model",
    [reading(np.array([20.5, 120.0, 200.0]).reshape(1, 3, 1, 1)), reading(0.25), reading(-3.0), reading(IMAGENET, reader="Sigmoid")],
    ids=["means far apart", "a small mean", "a negative mean", "channels in front of no convolution"],
)
def test_what_codes_hold_badly_is_subtracted_from_numbers(model: ir.Model) -> None:
    found = taken(model)
    assert scales(found) == [1.0] and "Add" in op_types(ir.to_proto(found))
