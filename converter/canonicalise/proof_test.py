from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from converter.canonicalise.proof import EDGE_TOLERANCE, Difference, Reference, difference, measure_noise, run_reference
from converter.errors import ModelError
from converter.testing.rewrites import Draft, weights


def gives(value: Any, dtype: Any = np.float32) -> onnx.ModelProto:
    """A model with one output, a constant."""
    draft = Draft(x=(1,))
    draft.add("Constant", value=onnx.numpy_helper.from_array(np.asarray(value, dtype)), name="y")
    return draft.model("y_out")


FEED = {"x": np.zeros(1, np.float32)}


def gap(value: Any, expected: Any, noise: float = 0.0, dtype: Any = np.float32) -> float:
    reference = run_reference(gives(expected, dtype), [FEED, FEED])
    return difference(gives(value, dtype), Reference(reference.model, reference.feeds, reference.outputs, ({"y_out": noise},) * 2)).error


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
    assert difference(gives([1], np.int32), run_reference(gives([1], np.int64), [FEED])).error == np.inf


def test_a_model_that_does_not_run_differs_as_much_as_can_be() -> None:
    broken = gives([1.0])
    broken.graph.node[0].op_type = "Nonsense"
    assert difference(broken, run_reference(gives([1.0]), [FEED])).error == np.inf
    with pytest.raises(ModelError):
        run_reference(broken, [FEED])


def test_an_output_that_is_missing_is_noticed() -> None:
    other = gives([1.0])
    other.graph.node[0].output[0] = other.graph.output[0].name = "z"
    assert difference(other, run_reference(gives([1.0]), [FEED])).error == np.inf


def test_noise_is_what_the_fusions_of_the_runtime_change() -> None:
    draft = Draft(x=(1, 4, 8, 8))
    vectors = [weights(4, seed=s, low=0.5, high=1.5) for s in range(4)]
    y = draft.add("BatchNormalization", draft.add("Conv", "x", weights(4, 4, 3, 3)), *vectors, name="y")
    reference = run_reference(draft.model(y, draft.add("Shape", "x", name="shape")), [{"x": weights(1, 4, 8, 8)}])
    assert set(reference.noise[0].values()) == {0.0}
    noise = measure_noise(reference).noise[0]
    assert 0.0 < noise["y_out"] < 1e-5
    assert noise["shape_out"] == 0.0


# Edges.

SAMPLE = {"x": np.asarray([[0.5, 1.0, 2.0, 3.0]], np.float32)}


def chain(*steps: tuple[Any, ...]) -> onnx.ModelProto:
    """Operators one behind the other, each as (operator, further operands)."""
    draft = Draft(x=(1, 4))
    name = "x"
    for number, (op_type, *operands) in enumerate(steps):
        name = draft.add(op_type, name, *operands, name=f"last{'' if number == len(steps) - 1 else number}")
    return draft.model(name)


def edge_of(rewritten: onnx.ModelProto, original: onnx.ModelProto, *, noisy: bool = False) -> tuple[float, str]:
    """(largest difference on an edge, its name); on samples there must be none."""
    reference = run_reference(original, [SAMPLE])
    found = difference(rewritten, measure_noise(reference) if noisy else reference)
    assert found.error == 0.0
    return found.edge_error, found.edge


def test_the_same_model_is_the_same_on_every_edge() -> None:
    model = chain(("Mul", 3.0), ("Exp",))
    names = [edge.name for edge in run_reference(model, [SAMPLE]).edges]
    assert names == ["inputs of zero", "negated inputs", "inputs a thousand times as large", "inputs a million times smaller"]
    assert edge_of(model, model) == (0.0, "")


@pytest.mark.parametrize(
    ("rewritten", "original", "edge"),
    [
        (chain(("Relu",), ("Log",)), chain(("Clip", 1e-6), ("Log",)), "inputs of zero"),
        (chain(("Identity",)), chain(("Relu",)), "negated inputs"),
        (chain(("Relu",)), chain(("Clip", 0.0, 50.0)), "inputs a thousand times as large"),
        (chain(("Reciprocal",)), chain(("Clip", 1e-3), ("Reciprocal",)), "inputs of zero"),
    ],
)
def test_what_differs_only_beyond_the_samples_shows_on_an_edge(rewritten: onnx.ModelProto, original: onnx.ModelProto, edge: str) -> None:
    for noisy in (False, True):
        error, name = edge_of(rewritten, original, noisy=noisy)
        assert error > EDGE_TOLERANCE
        assert name == edge
    found = difference(rewritten, run_reference(original, [SAMPLE]))
    assert not found.small
    assert found.decisive == (found.edge_error, edge)


def test_a_number_that_is_none_any_more_is_as_much_as_can_be() -> None:
    assert edge_of(chain(("Relu",), ("Log",)), chain(("Clip", 1e-6), ("Log",)))[0] == np.inf


def test_where_the_original_is_not_finite_an_edge_says_nothing() -> None:
    """Zero has no logarithm: the original gives minus infinity there, and NaN for negative numbers."""
    original, rewritten = chain(("Log",)), chain(("Clip", 1e-7), ("Log",))
    assert edge_of(rewritten, original) == (0.0, "")


def test_an_edge_on_which_the_original_does_not_run_is_none() -> None:
    draft = Draft(x=(1, 4))
    index = draft.add("Cast", draft.add("ReduceMax", "x", keepdims=0), to=7)
    reference = run_reference(draft.model(draft.add("Gather", draft.add("Relu", "x"), index, axis=1)), [SAMPLE])
    assert "inputs a thousand times as large" not in [edge.name for edge in reference.edges]


def test_integer_inputs_and_infinities_of_a_mask_are_left_as_they_are() -> None:
    draft = Draft(x=(1, 4), mask=(1, 4))
    model = draft.model(draft.add("Softmax", draft.add("Add", "x", "mask")))
    model.graph.input.append(onnx.helper.make_tensor_value_info("n", onnx.TensorProto.INT64, [1]))
    feed: dict[str, Any] = {**SAMPLE, "mask": np.asarray([[0, -np.inf, -2, -np.inf]], np.float32), "n": np.asarray([5], np.int64)}
    reference = run_reference(model, [feed])
    assert len(reference.edges) == 4
    for edge in reference.edges:
        assert edge.feed["n"] == [5]
        np.testing.assert_array_equal(np.isinf(edge.feed["mask"]), np.isinf(feed["mask"]))
    assert difference(model, reference) == Difference(0.0)


def test_masked_scores_are_compared_where_they_are_finite() -> None:
    draft = Draft(x=(1, 4), mask=(1, 4))
    model = draft.model(draft.add("Add", "x", "mask"))
    feed = {**SAMPLE, "mask": np.asarray([[0, -np.inf, -2, -np.inf]], np.float32)}
    other = Draft(x=(1, 4), mask=(1, 4))
    rewritten = other.model(other.add("Add", other.add("Mul", "x", 1.5), "mask", name="Add_0"))
    assert difference(model, run_reference(model, [feed])) == Difference(0.0)
    assert difference(rewritten, run_reference(model, [feed])).error == pytest.approx(2.0)


def test_rounding_that_large_inputs_blow_up_is_no_difference() -> None:
    """A sine of thousands turns the last digit of what it reads into its value."""
    original, rewritten = chain(("Mul", 3e3), ("Sin",)), chain(("Mul", 3e3 * (1 + 2e-6)), ("Sin",))
    reference = run_reference(original, [{"x": SAMPLE["x"] * np.float32(1e-3)}])
    assert difference(rewritten, reference).edge_error > EDGE_TOLERANCE
    assert difference(rewritten, measure_noise(reference)).small


def test_ties_decide_integers_on_an_edge() -> None:
    first, last = chain(("ArgMax",)), chain(("Add", np.asarray([0, 0, 0, 1e-7], np.float32)), ("ArgMax",))
    assert edge_of(last, first) == (0.0, "")
