from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from converter.canonicalise.conftest import Draft, weights
from converter.canonicalise.proof import Reference, difference, measure_noise, run_reference
from converter.errors import ModelError


def gives(value: Any, dtype: Any = np.float32) -> onnx.ModelProto:
    """A model with one output, a constant."""
    draft = Draft(x=(1,))
    draft.add("Constant", value=onnx.numpy_helper.from_array(np.asarray(value, dtype)), name="y")
    return draft.model("y_out")


FEED = {"x": np.zeros(1, np.float32)}


def gap(value: Any, expected: Any, noise: float = 0.0, dtype: Any = np.float32) -> float:
    reference = run_reference(gives(expected, dtype), [FEED, FEED])
    return difference(gives(value, dtype), Reference(reference.model, reference.feeds, reference.outputs, ({"y_out": noise},) * 2))


@pytest.mark.parametrize(
    ("value", "expected", "wanted"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([1.0, np.nan], [1.0, 2.0], np.inf),
        ([1.0, 2.0], [1.0, np.nan], np.inf),
        ([1.0, np.nan], [1.0, np.nan], 0.0),
        ([2.0, np.inf], [1.0, np.inf], 1.0),
        ([1.0, np.inf], [1.0, -np.inf], np.inf),
        ([1.0, np.inf], [1.0, 2.0], np.inf),
        ([1.0], [1.0, 1.0], np.inf),
        ([0.0], [0.0], 0.0),
        ([], [], 0.0),
    ],
)
def test_numbers_differ_relative_to_the_largest(value: list[float], expected: list[float], wanted: float) -> None:
    assert gap(value, expected) == wanted


def test_a_few_times_the_noise_is_no_difference() -> None:
    assert gap([1.0, 2.5], [1.0, 2.0], noise=0.1) == pytest.approx(0.05)
    assert gap([1.0, 2.5], [1.0, 2.0], noise=0.2) == 0.0


def test_of_integers_the_share_that_differs_counts() -> None:
    assert gap([1, 2, 3, 5], [1, 2, 3, 4], dtype=np.int64) == 0.25
    assert difference(gives([1], np.int32), run_reference(gives([1], np.int64), [FEED])) == np.inf


def test_a_model_that_does_not_run_differs_as_much_as_can_be() -> None:
    broken = gives([1.0])
    broken.graph.node[0].op_type = "Nonsense"
    assert difference(broken, run_reference(gives([1.0]), [FEED])) == np.inf
    with pytest.raises(ModelError):
        run_reference(broken, [FEED])


def test_an_output_that_is_missing_is_noticed() -> None:
    other = gives([1.0])
    other.graph.node[0].output[0] = other.graph.output[0].name = "z"
    assert difference(other, run_reference(gives([1.0]), [FEED])) == np.inf


def test_noise_is_what_the_fusions_of_the_runtime_change() -> None:
    draft = Draft(x=(1, 4, 8, 8))
    vectors = [weights(4, seed=s, low=0.5, high=1.5) for s in range(4)]
    y = draft.add("BatchNormalization", draft.add("Conv", "x", weights(4, 4, 3, 3)), *vectors, name="y")
    reference = run_reference(draft.model(y, draft.add("Shape", "x", name="shape")), [{"x": weights(1, 4, 8, 8)}])
    assert set(reference.noise[0].values()) == {0.0}
    noise = measure_noise(reference).noise[0]
    assert 0.0 < noise["y_out"] < 1e-5
    assert noise["shape_out"] == 0.0
