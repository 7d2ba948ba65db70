"""Narrow codes at run time: whatever comes in, no code leaves the limits of its grid, and no Clip is written that does nothing."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter import pipeline
from converter.options import Options
from converter.report import Report, report_json
from converter.runtime.latency import latency_ratio
from converter.runtime.session import open_session, run_session
from converter.testing.models import SaveHybrid
from converter.testing.narrow_networks import (
    CHANNELS,
    IN_FLOAT,
    STEPS,
    codes_stay_in_their_grids,
    far_feed,
    networks,
)
from converter.testing.sketch import TARGET_NAMES, Sketch, emitted, feeds_for, kernels_of, parity, plan_for, settings_for
from converter.verify.integer_coverage import measure_integer_coverage
from converter.verify.quality import sqnr
from converter.verify.simulation import simulate

targets = pytest.mark.parametrize("target", TARGET_NAMES)


WIDTHS = st.tuples(st.integers(4, 8), st.integers(4, 7))


@pytest.mark.parametrize("name", [*STEPS, *IN_FLOAT])
@targets
def test_no_code_leaves_its_grid_behind_any_step(name: str, target: str) -> None:
    sketch = Sketch()
    x = sketch.conv(sketch.input("x", 1, CHANNELS, 6, 6), CHANNELS)
    y = {**STEPS, **IN_FLOAT}[name](sketch, x, x)
    planned = plan_for(sketch.model(sketch.conv(y, CHANNELS)), target, bits=(8, 5))
    codes_stay_in_their_grids(planned, 5, optimise=True, seed=0)


@pytest.mark.parametrize("optimise", [True, False])
@targets
@given(network=networks({**STEPS, **IN_FLOAT}), bits=WIDTHS, cheapest=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_no_code_leaves_its_grid(
    optimise: bool, target: str, network: tuple[Sketch, tuple[str, ...]], bits: tuple[int, int], cheapest: bool, seed: int
) -> None:
    planned = plan_for(network[0].model(*network[1]), target, bits=bits, cheapest=cheapest)
    codes_stay_in_their_grids(planned, bits[1], optimise=optimise, seed=seed)


@targets
@given(network=networks(STEPS), bits=WIDTHS, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_far_from_what_was_seen_the_model_is_still_its_plan(
    target: str, network: tuple[Sketch, tuple[str, ...]], bits: tuple[int, int], seed: int
) -> None:
    planned = plan_for(network[0].model(*network[1]), target, bits=bits)
    feed = far_feed(planned, seed)
    got = run_session(open_session(emitted(planned), threads=1, settings=settings_for(planned.target)), feed)
    for name, value in simulate(planned.model, planned.plan, feed, {}).items():
        assert sqnr(value, got[name]) == 200.0


# Clips are where they are needed, and only there


CLIPS: dict[str, tuple[Callable[[Sketch], str], int]] = {
    "a conv behind a conv": (lambda s: s.conv(s.conv(image(s), 8), 8), 2),
    "silu between convs": (lambda s: s.conv(s.silu(s.conv(image(s), 8)), 8), 2),
    "a clamp is the same clip": (lambda s: s.conv(s.add("Clip", s.conv(image(s), 8), s.constant(-0.1), s.constant(0.1)), 8), 2),
    "hardswish needs none inside": (lambda s: s.add("HardSwish", s.conv(image(s), 8)), 1),
    "movements need none": (
        lambda s: s.add("MatMul", s.add("Transpose", s.add("Reshape", s.conv(image(s), 8), s.constant([8, 36], np.int64))), s.normal(8, 4)),
        2,
    ),
    "a factor needs none": (lambda s: s.conv(s.add("Mul", s.conv(image(s), 8), s.constant(0.5)), 8), 2),
    "one for all layers that read a stream": (
        lambda s: s.add("Add", s.add("Add", x := s.conv(image(s), 8), s.conv(x, 8)), s.conv(x, 8)),
        2,
    ),
    "concat needs one": (lambda s: s.conv(s.add("Concat", x := s.conv(image(s), 8), s.silu(x), axis=1), 16), 2),
}


def image(s: Sketch) -> str:
    return s.input("x", 1, 8, 6, 6)


@targets
@pytest.mark.parametrize(("build", "count"), CLIPS.values(), ids=CLIPS)
def test_clips_by_hand(build: Callable[[Sketch], str], count: int, target: str, tmp_path: Path) -> None:
    sketch = Sketch()
    planned = plan_for(sketch.model(build(sketch)), target, bits=(8, 6))
    proto = emitted(planned)
    written = Counter(n.op_type for n in proto.graph.node)
    found = kernels_of(proto, planned.target, tmp_path)
    assert written["Clip"] == found["Clip"] == count
    assert (found["QLinearConv"], found["Conv"]) == (written["Conv"], 0)
    assert parity(planned, proto) == 200.0


@targets
def test_the_integer_coverage_counts_clips_and_products(target: str, tmp_path: Path) -> None:
    results = []
    for activation_bits in (8, 6):
        sketch = Sketch()
        planned = plan_for(sketch.model(CLIPS["one for all layers that read a stream"][0](sketch)), target, bits=(8, activation_bits))
        feed = feeds_for(planned.model, 1)[0]
        results.append(
            measure_integer_coverage(emitted(planned), planned.plan, planned.offers, feed, settings_for(planned.target), tmp_path)
        )
    assert [r.kernels.get("Clip", 0) for r in results] == [0, 2]
    assert results[0].coverage == results[1].coverage == 1.0
    assert not results[1].float_ops


# A whole conversion


@pytest.mark.parametrize("bits", ["W6A6", "W8A4", "W4A7"])
@targets
def test_a_narrow_conversion_runs_as_much_in_integer(
    bits: str, target: str, save_hybrid: SaveHybrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "latency_ratio", functools.partial(latency_ratio, seconds=0.0))

    def converted(bits: str) -> Report:
        return pipeline.convert(
            save_hybrid(), tmp_path / "out.onnx", Options(samples=4, threads=1, target=target, method="minmax", bits=bits, placement="all")
        )

    wide, narrow = converted("W8A8").verdict, converted(bits)
    assert wide is not None and narrow.verdict is not None
    assert narrow.verdict.integer_coverage.coverage == wide.integer_coverage.coverage > 0.5
    assert (narrow.verdict.parity_db or 0.0) > 100.0
    written = Counter(n.op_type for n in onnx.load(tmp_path / "out.onnx").graph.node)
    assert narrow.verdict.integer_coverage.kernels["Clip"] == written["Clip"] > wide.integer_coverage.kernels.get("Clip", 0)
    record = json.loads(report_json(narrow))
    scores = {"7"} if target == "arm64" else set()  # of a softmax on codes
    assert set(record["tensor_bits"]) == {bits[3], "8"} | scores and set(record["weight_bits"]) == {bits[1]}
