from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper

from converter.torch_backend import ops as torch_ops
from converter.torch_backend.ops.testing.operators import Array, check_operator, floats, ints

X = floats(2, 3, 4)
IMAGE = floats(2, 8, 4, 6)


@pytest.mark.parametrize("shape", [(4, 6), (0, -1), (-1, 2, 3), (0, 0, 2, -1), (24,)], ids=str)
def test_reshape(shape: tuple[int, ...]) -> None:
    check_operator("Reshape", [X, ints(*shape)])


def test_reshape_can_mean_zero_by_zero() -> None:
    check_operator("Reshape", [floats(0, 3), ints(3, 0)], allowzero=1)


@pytest.mark.parametrize("attrs", [{}, {"perm": [1, 2, 0]}], ids=str)
def test_transpose(attrs: dict[str, Any]) -> None:
    check_operator("Transpose", [X], **attrs)


@pytest.mark.parametrize("axes", [None, (0,), (-1,), (0, 2)], ids=str)
def test_squeeze(axes: tuple[int, ...] | None) -> None:
    check_operator("Squeeze", [floats(1, 3, 1)] + ([] if axes is None else [ints(*axes)]))


@pytest.mark.parametrize("axes", [(0,), (-1,), (3, 0), (-1, 1)], ids=str)
def test_unsqueeze(axes: tuple[int, ...]) -> None:
    check_operator("Unsqueeze", [X, ints(*axes)])


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2])
def test_flatten(axis: int) -> None:
    check_operator("Flatten", [X], axis=axis)


def test_flatten_of_nothing() -> None:
    check_operator("Flatten", [floats(0, 3, 4)])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis: int) -> None:
    check_operator("Concat", [X, X + 1, X + 2], axis=axis)


def test_split_into_given_even_and_uneven_parts() -> None:
    check_operator("Split", [floats(2, 7), ints(1, 4, 2)], outputs=3, axis=1)
    check_operator("Split", [floats(6, 2)], outputs=3, num_outputs=3)
    check_operator("Split", [floats(2, 7)], outputs=3, axis=-1, num_outputs=3)


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ((1,), (3,), (2,), None),
        ((0, 1), (1, 3), None, None),
        ((-3,), (-1,), (-1,), None),
        ((0,), (2**62,), (1,), (2,)),
        ((-1,), (-(2**62),), (2,), (-1,)),
        ((3,), (0,), (2,), (-2,)),
        ((100,), (-100,), (2,), (-1,)),
        ((2,), (1,), (1,), None),
        ((0, 3), (2, 0), (1, 2), (1, -1)),
    ],
)
def test_slice(starts: tuple[int, ...], ends: tuple[int, ...], axes: tuple[int, ...] | None, steps: tuple[int, ...] | None) -> None:
    rest = [None if a is None else ints(*a) for a in (axes, steps)]
    check_operator("Slice", [X, ints(*starts), ints(*ends), *rest])


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize(
    "index", [np.asarray(1, np.int64), ints(-1, 0, 1), np.asarray([[0, -2], [1, 1]], np.int32)], ids=["one", "some", "params"]
)
def test_gather(axis: int, index: Array) -> None:
    check_operator("Gather", [X, index], axis=axis)


def test_gather_one_number_of_a_vector() -> None:
    check_operator("Gather", [ints(5, 6, 7), np.asarray(-1, np.int64)])


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 1), (5, 1, 3, 1), (1, 1, 4)], ids=str)
def test_expand(shape: tuple[int, ...]) -> None:
    check_operator("Expand", [floats(3, 1) if len(shape) != 4 else floats(2, 3, 4), ints(*shape)])


def test_tile() -> None:
    check_operator("Tile", [X, ints(2, 1, 3)])


@pytest.mark.parametrize(
    ("mode", "pads"),
    [("constant", (0, 1, 2, 0, 3, 1)), ("edge", (1, 2, 0, 0, 3, 5)), ("reflect", (0, 2, 1, 0, 1, 3)), ("wrap", (1, 0, 2, 0, 2, 1))],
)
def test_pad(mode: str, pads: tuple[int, ...]) -> None:
    check_operator("Pad", [X, ints(*pads)], mode=mode)


def test_pad_with_a_number_on_some_axes_and_by_less_than_nothing() -> None:
    check_operator("Pad", [X, ints(1, 2, 3, 0), np.asarray(7.5, np.float32), ints(-1, 1)])
    check_operator("Pad", [X, ints(0, -1, 1, 0, 0, -2)])


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str) -> None:
    check_operator("DepthToSpace", [IMAGE], blocksize=2, mode=mode)


def test_space_to_depth() -> None:
    check_operator("SpaceToDepth", [IMAGE], blocksize=2)


@pytest.mark.parametrize("attrs", [{}, {"start": 1}, {"start": -2, "end": -1}, {"end": 2}], ids=str)
def test_shape(attrs: dict[str, Any]) -> None:
    check_operator("Shape", [X], **attrs)


def test_size() -> None:
    check_operator("Size", [X])


def test_constant_of_shape() -> None:
    check_operator("ConstantOfShape", [ints(2, 3)])
    check_operator("ConstantOfShape", [ints(2)], value=helper.make_tensor("value", 7, [1], [5]))


def test_range() -> None:
    check_operator("Range", [np.asarray(2, np.int64), np.asarray(9, np.int64), np.asarray(3, np.int64)])
    check_operator("Range", [np.asarray(v, np.float32) for v in (3.0, -1.0, -0.5)], mapped=[])


def test_unknown_border_is_named() -> None:
    with pytest.raises(torch_ops.UnknownOperatorError, match="mode=mirror"):
        torch_ops.apply("Pad", [torch.zeros(2), torch.tensor([1, 1])], {"mode": "mirror"})


def test_numbers_without_dimensions() -> None:
    number = np.asarray(2.5, np.float32)
    check_operator("Transpose", [number])
    check_operator("Reshape", [number, ints(1, 1)])
    check_operator("Reshape", [floats(1, 1), np.zeros(0, np.int64)])
    check_operator("Unsqueeze", [number, ints(0)])
    check_operator("Squeeze", [floats(1)])
    check_operator("Expand", [number, ints(2, 3)])
    check_operator("Shape", [number])
