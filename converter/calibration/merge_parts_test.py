"""Statistics of parts of the samples, merged, are those of all samples to the bit."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.calibration import observer
from converter.calibration.observer import CalibrationStatistics, PartStatistics, collect_part, collect_statistics, merge_parts
from converter.distribute.workers import Workers, as_done
from converter.errors import CalibrationError
from converter.runtime.session import Feed
from converter.testing.sketch import Sketch, feeds_for

SAMPLES = 9


def network() -> ir.Model:
    """A masked tensor, which is not finite everywhere, and one whose shape depends on the values."""
    sketch = Sketch()
    x = sketch.input("x", 3, 40)
    positive = sketch.add("Greater", x, sketch.constant(0.0))
    masked = sketch.add("Where", positive, x, sketch.constant(-np.inf))
    rows = sketch.add("Greater", sketch.add("ReduceMax", x, sketch.constant([1], np.int64), keepdims=0), sketch.constant(2.2))
    return sketch.model(masked, sketch.add("Exp", sketch.add("Compress", x, rows, axis=0)))


MODEL = network()
FEEDS = feeds_for(MODEL, SAMPLES)
WHOLE = collect_statistics(MODEL, FEEDS, seed=3, threads=1)


def parts_of(cuts: list[int]) -> list[PartStatistics]:
    places = [0, *sorted(cuts), SAMPLES]
    ranges = [(start, stop) for start, stop in pairwise(places) if start < stop]
    return [collect_part(MODEL, FEEDS[a:b], first=a, total=SAMPLES, seed=3, threads=1) for a, b in ranges]


def bits(seen: CalibrationStatistics) -> dict[str, object]:
    return {n: (t.minimum, t.maximum, t.nearest, t.sample.tobytes(), t.shape, t.steady, t.flaw) for n, t in seen.tensors.items()}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, SAMPLES - 1), max_size=5, unique=True), st.randoms(use_true_random=False))
def test_any_parts_in_any_order_merge_into_the_whole(cuts: list[int], random: object) -> None:
    parts = parts_of(cuts)
    random.shuffle(parts)  # type: ignore[attr-defined]
    merged = merge_parts(parts)
    assert bits(merged) == bits(WHOLE) and merged.samples == SAMPLES
    assert list(merged.tensors) == list(WHOLE.tensors)


def test_the_whole_has_what_merging_could_get_wrong() -> None:
    flaws = {stats.flaw for stats in WHOLE.tensors.values()}
    assert "not all of its numbers are finite" in flaws
    assert {stats.steady for stats in WHOLE.tensors.values()} == {True, False}


def test_parts_that_are_not_all_or_overlap_are_refused() -> None:
    first, second, third = parts_of([2, 5])
    for parts, what in (
        ([first, third], "ends at 2 of 9"),
        ([first, second], "5 of 9"),
        ([first, second, second, third], "begins at sample 2"),
    ):
        with pytest.raises(ValueError, match=what):
            merge_parts(parts)


def test_an_output_that_is_never_finite_is_refused_whatever_the_parts() -> None:
    sketch = Sketch()
    model = sketch.model(sketch.add("Log", sketch.input("x", 1, 3), name="log"))
    given = [{"x": np.full((1, 3), sign, np.float32)} for sign in (-1, 1, -1)]
    parts = [collect_part(model, [feed], first=place, total=3, threads=1) for place, feed in enumerate(given)]
    assert merge_parts(parts).tensors["log.0"].maximum == 0.0
    bad = [collect_part(model, [given[0]], first=place, total=2, threads=1) for place in range(2)]
    with pytest.raises(CalibrationError, match=r"output 'log\.0' is not finite"):
        merge_parts(bad)


def test_of_very_many_samples_few_keep_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "_VALUES_KEPT", 4)
    assert [observer._kept(place, 10) for place in range(10)] == [0, 0, 1, 0, 1, 0, 0, 1, 0, 1]
    seen = collect_statistics(MODEL, FEEDS, threads=1)
    assert seen.tensors["x"].sample.size == 4
    assert seen.tensors["x"].maximum == WHOLE.tensors["x"].maximum


def part_of(state: tuple[bytes, Sequence[Feed]], places: tuple[int, int]) -> PartStatistics:
    model, feeds = state
    start, stop = places
    return collect_part(ir.from_proto(pickle.loads(model)), feeds[start:stop], first=start, total=len(feeds), seed=3, threads=1)


@pytest.mark.slow
def test_parts_that_other_processes_collect_merge_into_the_whole() -> None:
    state: tuple[bytes, Sequence[Feed]] = pickle.dumps(ir.to_proto(MODEL)), FEEDS
    parts = [part for _, part in as_done(part_of, state, [(0, 4), (4, 7), (7, 9)], Workers(2))]
    assert bits(merge_parts(parts)) == bits(WHOLE)
