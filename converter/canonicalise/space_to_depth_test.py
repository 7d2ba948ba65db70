"""Moves between channels and places, written as moves of blocks: the same numbers, with an open batch too."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converter.canonicalise.space_to_depth import move_blocks
from converter.runtime.session import run_model
from converter.testing.sketch import Sketch


def moved(model: ir.Model, *shape: int) -> list[str]:
    """Rewrite, compare on random numbers, and return the operators of the result."""
    feed = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    (expected,) = run_model(ir.to_proto(model), feed).values()
    assert move_blocks(model) == [str(model.graph.outputs[0].name)]
    (got,) = run_model(ir.to_proto(model), feed).values()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    return [n.op_type for n in model.graph]


MOVES = ["Transpose", "Reshape", "Transpose", "Reshape", "Transpose"]


@pytest.mark.parametrize("batch", [2, "batch"])
@pytest.mark.parametrize("size", [2, 3])
def test_depth_to_space_in_the_order_of_blocks_is_moves_alone(size: int, batch: int | str) -> None:
    s = Sketch()
    model = s.model(s.add("DepthToSpace", s.input("x", batch, 5 * size * size, 4, 6), blocksize=size))
    assert moved(model, 2, 5 * size * size, 4, 6) == MOVES


def test_a_pixel_shuffle_orders_its_channels_first() -> None:
    s = Sketch()
    model = s.model(s.add("DepthToSpace", s.input("x", 2, 12, 4, 6), blocksize=2, mode="CRD"))
    assert moved(model, 2, 12, 4, 6) == ["Gather", *MOVES]


@pytest.mark.parametrize("bias", [True, False])
def test_behind_a_convolution_its_weights_are_in_that_order(bias: bool) -> None:
    s = Sketch()
    model = s.model(s.add("DepthToSpace", s.conv(s.input("x", 2, 3, 4, 6), 3, outputs=12, bias=bias), blocksize=2, mode="CRD"))
    assert moved(model, 2, 3, 4, 6) == ["Conv", *MOVES]


@pytest.mark.parametrize("size", [2, 3])
def test_space_to_depth_is_moves_alone(size: int) -> None:
    s = Sketch()
    model = s.model(s.add("SpaceToDepth", s.input("x", 2, 5, 2 * size, 3 * size), blocksize=size))
    assert moved(model, 2, 5, 2 * size, 3 * size) == MOVES


@pytest.mark.parametrize(("size", "bias"), [((2, 2), True), ((3, 2), False)])
def test_a_transposed_convolution_without_overlap_is_a_product_and_moves(size: tuple[int, int], bias: bool) -> None:
    s = Sketch()
    operands = [s.input("x", "batch", 4, 5, 6), s.normal(4, 7, *size), *([s.normal(7)] if bias else [])]
    model = s.model(s.add("ConvTranspose", *operands, strides=list(size)))
    assert moved(model, 2, 4, 5, 6) == ["Conv", *MOVES]


@pytest.mark.parametrize(
    "change", [{"strides": [2, 2], "pads": [1, 1, 1, 1]}, {"strides": [1, 1]}, {"strides": [2, 2], "output_padding": [1, 1]}]
)
def test_windows_that_overlap_or_leave_gaps_stay(change: dict[str, Any]) -> None:
    s = Sketch()
    model = s.model(s.add("ConvTranspose", s.input("x", 1, 4, 5, 6), s.normal(4, 7, 2, 2), **change))
    assert move_blocks(model) == []


def test_open_sides_stay() -> None:
    s = Sketch()
    assert move_blocks(s.model(s.add("DepthToSpace", s.input("x", 1, 8, "height", 6), blocksize=2))) == []
