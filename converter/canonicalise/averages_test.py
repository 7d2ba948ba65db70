from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from converter.canonicalise.averages import spell_out_averages
from converter.canonicalise.folding.layers import Array
from converter.targets import find_target
from converter.testing.rewrites import Draft, op_types, rewrite, weights

SAME: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}

spell_out_averages_on_arm64 = partial(spell_out_averages, target=find_target("arm64"))


def constants(draft: Draft, output: str) -> dict[str, Array]:
    result, _ = rewrite(spell_out_averages_on_arm64, draft.model(output))
    return {i.name.rsplit("_", 1)[-1]: numpy_helper.to_array(i) for i in result.graph.initializer}


def test_case_1_windows_that_count_the_border_are_a_convolution() -> None:
    draft = Draft(x=("n", 3, "h", "w"))
    output = draft.add("AveragePool", "x", **SAME, count_include_pad=1)
    result, changed = rewrite(spell_out_averages_on_arm64, draft.model(output), {"h": 5, "w": 6})
    assert op_types(result) == ["Conv"]
    assert changed == [output]


def test_case_1_windows_that_do_not_get_a_gain_per_position() -> None:
    draft = Draft(x=(2, 3, 4, 5))
    held = constants(draft, draft.add("AveragePool", "x", **SAME))
    np.testing.assert_allclose(held["weight"], np.full((3, 1, 3, 3), 1 / 9), rtol=1e-6)
    edge, corner = 9 / 6, 9 / 4
    np.testing.assert_allclose(
        held["gain"][0, 0], [[corner, *[edge] * 3, corner], [edge, 1, 1, 1, edge], [edge, 1, 1, 1, edge], [corner, *[edge] * 3, corner]]
    )


def test_case_1_a_gain_needs_known_sizes() -> None:
    draft = Draft(x=("n", 3, "h", "w"))
    assert rewrite(spell_out_averages_on_arm64, draft.model(draft.add("AveragePool", "x", **SAME)), {"h": 5, "w": 6})[1] == []


@pytest.mark.parametrize(
    ("attrs", "why"),
    [
        ({"kernel_shape": [1, 1], "strides": [2, 2]}, "only picks elements"),
        ({"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, "windows that reach beyond the end"),
        ({"kernel_shape": [2, 2], "dilations": [2, 2]}, "holes"),
        ({"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}, "a border that depends on the size"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_case_1_other_poolings_stay(attrs: dict[str, Any], why: str) -> None:
    draft = Draft(x=(1, 2, 64, 64))
    assert rewrite(spell_out_averages_on_arm64, draft.model(draft.add("AveragePool", "x", **attrs)))[1] == []


def test_case_1_a_large_window_is_a_convolution_too() -> None:
    """Counted on a Cortex-A76, of two channels: 4.0 million instructions instead of 14.8, both in float."""
    draft = Draft(x=(1, 2, 64, 64))
    pooled = draft.add("AveragePool", "x", kernel_shape=[16, 16])
    assert op_types(rewrite(spell_out_averages_on_arm64, draft.model(pooled))[0]) == ["Conv"]


def mixer(draft: Draft, factor: Array | float, *, read_twice: bool = False, swapped: bool = False) -> list[str]:
    pooled = draft.add("AveragePool", "x", **SAME)
    scaled = draft.add("Mul", draft.add("Sub", "x" if swapped else pooled, pooled if swapped else "x"), factor)
    result, _ = rewrite(spell_out_averages_on_arm64, draft.model(draft.add("Add", "x", scaled), *([scaled] if read_twice else [])))
    return op_types(result)


@pytest.mark.parametrize("factor", [0.3, weights(3, 1, 1), weights(1, 3, 1, 1)], ids=["number", "vector", "row"])
def test_case_2_a_token_mixer_takes_the_factor_into_the_weights(factor: Array | float) -> None:
    assert mixer(Draft(x=(1, 3, 6, 6)), factor) == ["Conv", "Mul", "Mul", "Add"]


def test_case_2_without_a_factor_per_position_a_token_mixer_is_one_convolution() -> None:
    draft, factor = Draft(x=(1, 3, 6, 6)), weights(3, 1, 1)
    pooled = draft.add("AveragePool", "x", **SAME, count_include_pad=1)
    held = constants(draft, draft.add("Add", "x", draft.add("Mul", draft.add("Sub", pooled, "x"), factor)))
    np.testing.assert_allclose(held["weight"][:, 0, 0, 0], factor.ravel() / 9, rtol=1e-6)
    np.testing.assert_allclose(held["weight"][:, 0, 1, 1], 1.0 - factor.ravel() * 8 / 9, rtol=1e-6)


LARGE = (1, 32, 28, 28)
BORDER = ["Slice", "Slice", "Add", "Mul", "Split", "Concat"]


def test_on_a_large_map_a_border_takes_the_place_of_gain_product_and_sum() -> None:
    assert mixer(Draft(x=LARGE), 0.3) == [*BORDER, *BORDER, "Conv"]


def test_where_the_border_costs_more_the_gain_stays() -> None:
    assert mixer(Draft(x=(1, 32, 7, 7)), 0.3) == ["Conv", "Mul", "Mul", "Add"]


def test_case_2_other_sums_keep_their_subtraction() -> None:
    for types in (
        mixer(Draft(x=(1, 3, 6, 6)), weights(6)),
        mixer(Draft(x=(1, 3, 6, 6)), 0.3, read_twice=True),
        mixer(Draft(x=(1, 3, 6, 6)), 0.3, swapped=True),
    ):
        assert types == ["Conv", "Mul", "Sub", "Mul", "Add"]


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(4, 9), st.integers(4, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
    st.booleans(),
)
def test_the_averages_are_the_same(
    sides: tuple[int, int], window: tuple[int, int], strides: tuple[int, int], pads: list[int], counted: bool
) -> None:
    pads = [min(pad, window[i % 2] - 1) for i, pad in enumerate(pads)]
    draft = Draft(x=(1, 2, *sides))
    attrs: dict[str, Any] = {"kernel_shape": list(window), "strides": list(strides), "pads": pads, "count_include_pad": int(counted)}
    rewrite(spell_out_averages_on_arm64, draft.model(draft.add("AveragePool", "x", **attrs)))  # compares the outputs
