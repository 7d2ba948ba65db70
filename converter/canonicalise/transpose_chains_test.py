from __future__ import annotations

import math
from functools import partial

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.canonicalise.transpose_chains import _shapes_of, rearrange
from converter.targets import TARGETS
from converter.testing.rewrites import Draft, op_types, rewrite

CHEAPEST = partial(rearrange, target=TARGETS["arm64"])


def moves(draft: Draft, *steps: tuple[int, ...] | str) -> onnx.ModelProto:
    """Reshape to each tuple, Transpose by each string of axes."""
    value = "x"
    for step in steps:
        if isinstance(step, str):
            value = draft.add("Transpose", value, perm=[int(axis) for axis in step])
        else:
            value = draft.add("Reshape", value, np.asarray(step, np.int64))
    return draft.model(value)


def perms(model: onnx.ModelProto) -> list[list[int]]:
    return [list(node.attribute[0].ints) for node in model.graph.node if node.op_type == "Transpose"]


def test_the_unfolding_of_mobilevit_goes_through_channels_last() -> None:
    model = moves(Draft(x=(1, 64, 8, 8)), (64 * 4, 2, 4, 2), "0213", (1, 64, 16, 4), "0321", (4, 16, 64))
    result, changed = rewrite(CHEAPEST, model)
    assert changed
    assert op_types(result) == ["Transpose", "Reshape", "Transpose", "Reshape"]
    # the first undoes the Transpose behind an integer Conv, the second moves whole rows of channels
    assert perms(result) == [[0, 2, 3, 1], [1, 3, 0, 2, 4]]


def test_its_folding_ends_with_channels_first() -> None:
    model = moves(Draft(x=(4, 16, 64)), (1, 4, 16, 64), "0321", (64 * 4, 4, 2, 2), "0213", (1, 64, 8, 8))
    assert perms(rewrite(CHEAPEST, model)[0]) == [[2, 0, 3, 1, 4], [0, 3, 1, 2]]


def test_an_unfolding_that_keeps_channels_in_front_does_not_move_numbers_one_by_one() -> None:
    model = moves(Draft(x=(1, 64, 32, 32)), (1, 64, 16, 2, 16, 2), "013524", (1, 64, 4, 256))
    found = perms(rewrite(CHEAPEST, model)[0])
    assert found != [[0, 1, 3, 5, 2, 4]]
    assert len(found) in (2, 3)


def test_short_heads_are_brought_in_front_of_tokens_by_turning_matrices() -> None:
    """Two steps that move single numbers instead of 4096 pieces of 16."""
    model = moves(Draft(x=(4, 256, 64)), (4, 256, 4, 16), "0213", (16, 256, 16))
    found = perms(rewrite(CHEAPEST, model)[0])
    assert found == [[0, 2, 1], [0, 2, 1]]


@pytest.mark.parametrize(
    ("shape", "steps"),
    [
        ((1, 64, 8, 8), ["0231"]),
        ((1, 16, 256), [(1, 16, 2, 128), "0213", (2, 16, 128)]),
        ((1, 6, 8, 8), [(6, 64), (2, 3, 64)]),
        ((64, 12), [(64, 3, 4), "102", (3, 4, 64), "201"]),
    ],
    ids=["channels last", "heads", "views", "atoms that were moved apart regrouped"],
)
def test_what_is_cheap_or_cannot_be_read_stays(shape: tuple[int, ...], steps: list[tuple[int, ...] | str]) -> None:
    assert rewrite(CHEAPEST, moves(Draft(x=shape), *steps))[1] == []


def test_transposes_that_cancel_vanish() -> None:
    result, changed = rewrite(CHEAPEST, moves(Draft(x=(2, 3, 4, 5)), "0312", (2, 5, 12), "021", (2, 3, 4, 5)))
    assert changed
    assert perms(result) == []


def test_a_tensor_that_others_read_ends_the_chain() -> None:
    draft = Draft(x=(1, 64, 8, 8))
    between = draft.add("Transpose", draft.add("Reshape", "x", np.asarray((256, 2, 4, 2))), perm=[0, 2, 1, 3])
    end = draft.add("Transpose", draft.add("Reshape", between, np.asarray((1, 64, 16, 4))), perm=[0, 3, 2, 1])
    assert perms(rewrite(CHEAPEST, draft.model(end, between))[0])[0] == [0, 2, 1, 3]


def test_an_open_batch_is_followed_and_stays_open() -> None:
    model = moves(Draft(x=("n", 64, 8, 8)), (-1, 2, 4, 2), "0213", (-1, 64, 16, 4), "0321", (-1, 16, 64))
    result, changed = rewrite(CHEAPEST, model, {"n": 3})  # compares the outputs
    assert changed
    # the batch stays in front where channels go to the end, as behind a convolution
    assert perms(result)[0] == [0, 2, 3, 1]
    assert all(-1 in onnx.numpy_helper.to_array(i) for i in result.graph.initializer)


def test_other_sizes_that_are_unknown_are_left_alone() -> None:
    draft = Draft(x=(1, 64, "rows", 8))
    model = moves(draft, (1, 64, -1, 2, 4, 2), "013524", (1, 64, 4, -1))
    assert rewrite(CHEAPEST, model, {"rows": 8})[1] == []


def test_no_shape_is_not_the_shape_of_a_scalar() -> None:
    """Shapes that cannot be inferred, as behind some recurrent layers with an open batch, are missing."""
    model: ir.Model = ir.from_proto(moves(Draft(x=("n", 4, 6)), "021"))
    shapes = _shapes_of(model)
    assert shapes(model.graph.inputs[0]) is not None and shapes(ir.Value(name="elsewhere")) is None


@st.composite
def chains(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[int, ...] | str]]:
    """A shape, and a few random regroupings and permutations of its axes."""
    atoms = draw(st.lists(st.sampled_from([1, 2, 3, 4, 8]), min_size=2, max_size=5))
    shape, steps = tuple(atoms), list[tuple[int, ...] | str]()
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            order = draw(st.permutations(range(len(shape))))
            steps.append("".join(map(str, order)))
            shape = tuple(shape[i] for i in order)
        else:
            cut = draw(st.integers(1, len(shape)))
            shape = (*shape[: cut - 1], math.prod(shape[cut - 1 : cut + 1]), *shape[cut + 1 :])
            if shape[0] % 2 == 0 and len(shape) < 6 and draw(st.booleans()):
                shape = (2, shape[0] // 2, *shape[1:])
            steps.append(shape)
    return tuple(atoms), steps


@settings(max_examples=60, deadline=None)
@given(chains())
def test_elements_go_to_the_same_places(chain: tuple[tuple[int, ...], list[tuple[int, ...] | str]]) -> None:
    shape, steps = chain
    rewrite(CHEAPEST, moves(Draft(x=shape), *steps))  # compares the outputs
