from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from converter.canonicalise.resizes import multiply_out_resizes
from converter.targets import find_target
from converter.testing.rewrites import Draft, Shape, assert_equal_outputs, op_types, outputs_of, random_feed, rewrite

PRODUCT = ["Reshape", "MatMul", "Reshape"]
NOTHING = np.zeros(0, np.float32)

multiply_out_resizes_on_arm64 = partial(multiply_out_resizes, target=find_target("arm64"))


def by_scales(shape: Shape, *scales: float, **attrs: Any) -> tuple[Draft, str]:
    draft = Draft(x=shape)
    return draft, draft.add("Resize", "x", NOTHING, np.array(scales, np.float32), **({"mode": "linear"} | attrs))


def by_sizes(shape: Shape, *sizes: int, **attrs: Any) -> tuple[Draft, str]:
    draft = Draft(x=shape)
    return draft, draft.add("Resize", "x", NOTHING, NOTHING, np.array(sizes, np.int64), **({"mode": "linear"} | attrs))


def rewritten(draft: Draft, output: str) -> list[str]:
    result, _ = rewrite(multiply_out_resizes_on_arm64, draft.model(output))
    return op_types(result)


def test_doubling_a_row_weighs_neighbours_three_to_one() -> None:
    draft, output = by_scales((1, 5, 1, 3), 1, 1, 1, 2)
    result, changed = rewrite(multiply_out_resizes_on_arm64, draft.model(output))
    (weights,) = [numpy_helper.to_array(i) for i in result.graph.initializer if i.name.endswith("_weights")]
    assert changed == [output]
    np.testing.assert_array_equal(4 * weights, [[4, 3, 1, 0, 0, 0], [0, 1, 3, 3, 1, 0], [0, 0, 0, 1, 3, 4]])


@settings(max_examples=40)
@given(
    sides=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    target=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    factors=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    mode=st.sampled_from(["linear", "cubic"]),
    where=st.sampled_from(["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]),
    given_sizes=st.booleans(),
)
def test_interpolation_between_few_positions_is_a_product(
    sides: tuple[int, int], target: tuple[int, int], factors: tuple[int, int], mode: str, where: str, given_sizes: bool
) -> None:
    attrs = {"mode": mode, "coordinate_transformation_mode": where}
    if given_sizes:
        draft, output = by_sizes((2, 3, *sides), 2, 3, *target, **attrs)
    else:
        draft, output = by_scales((2, 3, *sides), 1, 1, *factors, **attrs)
    before = draft.model(output)
    result, _ = rewrite(multiply_out_resizes_on_arm64, before)
    assert op_types(result) == PRODUCT
    assert_equal_outputs(before, result, random_feed(before))


@pytest.mark.parametrize(
    ("draft", "why"),
    [
        (by_scales((1, 2, 4, 4), 1, 1, 2, 2, mode="nearest"), "moves elements, as integers too"),
        (by_sizes((1, 8, 20, 20), 1, 8, 8, 8), "more positions than pay"),
        (by_scales((1, 2, 8, 8), 1, 1, 8, 8), "more weights than fit"),
        (by_scales((1, 4, 4, 2), 1, 2, 2, 1), "channels last"),
        (by_sizes((1, 4, 4, 2), 1, 8, 8, 2), "channels last"),
        (by_scales((2, 4, 4), 1, 2, 2), "no map"),
        (by_sizes((1, 2, 4, 4), 1, 2, 8, 6, keep_aspect_ratio_policy="not_larger"), "another scale than the sizes say"),
        (by_scales((1, 2, 4, 4), 1, 1, 2, 2, axes=[0, 1, 2, 3]), "axes named one by one"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_other_resizes_stay(draft: tuple[Draft, str], why: str) -> None:
    assert rewritten(*draft) == ["Resize"]


def test_a_scale_that_is_computed_stays() -> None:
    draft = Draft(x=(1, 2, 4, 4), y=(4,))
    scales = draft.add("Add", draft.add("Mul", "y", 0.0), np.array([1, 1, 2, 2], np.float32))
    assert "Resize" in rewritten(draft, draft.add("Resize", "x", NOTHING, scales, mode="linear"))


def test_a_size_that_the_runtime_rounds_otherwise_than_shape_inference_stays() -> None:
    draft, output = by_scales((1, 1, 1, 3), 1, 1, 1, 5 / 3)
    before = draft.model(output)
    inferred = before.graph.output[0].type.tensor_type.shape.dim[3].dim_value
    assert inferred != outputs_of(before, random_feed(before))[output].shape[3]
    assert rewritten(draft, output) == ["Resize"]
