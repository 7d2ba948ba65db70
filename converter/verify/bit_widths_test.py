"""Narrow codes at run time: whatever comes in, no code leaves the limits of its grid, and no Clip is written that does nothing."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from converter import pipeline
from converter.options import Options
from converter.report import Report, report_json
from converter.runtime.latency import latency_ratio
from converter.runtime.session import open_session, run_session
from converter.testing.models import SaveHybrid
from converter.testing.sketch import TARGET_NAMES, Planned, Sketch, emitted, feeds_for, kernels_of, parity, plan_for, settings_for
from converter.verify.integer_coverage import take_census
from converter.verify.simulation import simulate
from converter.verify.verdict import sqnr

CHANNELS = 8
FAR = 1000.0
"""Inputs are this many times what was calibrated."""

targets = pytest.mark.parametrize("target", TARGET_NAMES)
Step = Callable[[Sketch, str, str], str]


def through_split(s: Sketch, x: str, _: str) -> str:
    left, right = s.split("Split", x, outputs=2, axis=1, num_outputs=2)
    return s.add("Concat", s.conv(left, CHANNELS // 2), s.add("Sigmoid", right), axis=1)


def through_moves(s: Sketch, x: str, _: str) -> str:
    flat = s.add("Reshape", x, s.constant([1, CHANNELS, 36], np.int64))
    turned = s.add("Transpose", s.add("Mul", flat, s.constant(0.25)), perm=[0, 2, 1])
    mixed = s.add("MatMul", turned, s.normal(CHANNELS, CHANNELS, scale=0.3))
    back = s.add("Transpose", s.add("Add", mixed, turned), perm=[0, 2, 1])
    return s.add("Reshape", back, s.constant([1, CHANNELS, 6, 6], np.int64))


def through_attention(s: Sketch, x: str, _: str) -> str:
    tokens = s.add("Transpose", s.add("Reshape", x, s.constant([1, CHANNELS, 36], np.int64)), perm=[0, 2, 1])
    normal = s.add("LayerNormalization", tokens, s.normal(CHANNELS), s.normal(CHANNELS))
    q, k, v = (s.add("MatMul", normal, s.normal(CHANNELS, CHANNELS, scale=0.3)) for _ in range(3))
    scores = s.add("Softmax", s.add("MatMul", q, s.add("Transpose", k, perm=[0, 2, 1])))
    tokens = s.add("Add", tokens, s.add("MatMul", scores, v))
    return s.add("Reshape", s.add("Transpose", tokens, perm=[0, 2, 1]), s.constant([1, CHANNELS, 6, 6], np.int64))


def enlarged(s: Sketch, x: str, _: str) -> str:
    return s.conv(s.add("Resize", x, "", s.constant([1, 1, 2, 2]), mode="nearest"), CHANNELS, strides=[2, 2])


STEPS: dict[str, Step] = {
    "conv": lambda s, x, _: s.conv(x, CHANNELS),
    "depthwise": lambda s, x, _: s.conv(x, CHANNELS, group=CHANNELS),
    "relu": lambda s, x, _: s.add("Relu", s.conv(x, CHANNELS)),
    "clip": lambda s, x, _: s.add("Clip", s.conv(x, CHANNELS), s.constant(-0.5), s.constant(0.75)),
    "silu": lambda s, x, _: s.silu(x),
    "sigmoid": lambda s, x, _: s.add("Sigmoid", x),
    "saturated sigmoid": lambda s, x, _: s.add("Sigmoid", s.add("Mul", x, s.constant(16.0))),
    "hardswish": lambda s, x, _: s.add("HardSwish", x),
    "gelu": lambda s, x, _: s.add("Gelu", x),
    "leaky": lambda s, x, _: s.add("LeakyRelu", x, alpha=0.1),
    "residual": lambda s, x, y: s.add("Add", x, y),
    "gate": lambda s, x, y: s.add("Mul", x, s.add("Sigmoid", s.conv(s.add("GlobalAveragePool", y), CHANNELS, size=1))),
    "concat": lambda s, x, y: s.conv(s.add("Concat", x, y, axis=1), 2 * CHANNELS, outputs=CHANNELS, size=1),
    "affine": lambda s, x, _: s.add("Add", s.add("Mul", x, s.normal(CHANNELS, 1, 1)), s.normal(CHANNELS, 1, 1)),
    "split": through_split,
    "moves": through_moves,
    "resize": enlarged,
}
IN_FLOAT: dict[str, Step] = {"erf": lambda s, x, _: s.add("Erf", x), "attention": through_attention}


@st.composite
def networks(draw: st.DrawFn, steps: dict[str, Step]) -> tuple[Sketch, tuple[str, ...]]:
    """Up to six steps, each on the last tensor and some earlier one; the last tensor and some other are the outputs."""
    s = Sketch(draw(st.integers(0, 99)))
    made = [s.input("x", 1, CHANNELS, 6, 6)]
    for name in draw(st.lists(st.sampled_from(sorted(steps)), min_size=1, max_size=6)):
        made.append(steps[name](s, made[-1], draw(st.sampled_from(made))))
    made.append(s.conv(made[-1], CHANNELS))
    return s, tuple(dict.fromkeys([made[-1], draw(st.sampled_from(made[1:]))]))


WIDTHS = st.tuples(st.integers(4, 8), st.integers(4, 7))


def codes_of(planned: Planned, proto: onnx.ModelProto) -> dict[str, str]:
    """The name in the emitted graph of what readers take for each tensor's codes."""
    present = {o for n in proto.graph.node for o in n.output}
    tensors = [name for name, fate in planned.plan.tensors.items() if fate.grid is not None and fate.fate != "derived"]
    return {t: next(w for w in (f"{t}_Clip_output", f"{t}_QuantizeLinear_output") if w in present) for t in tensors}


def exposed(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """The same model with more outputs."""
    result = onnx.ModelProto.FromString(proto.SerializeToString())
    result.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    inferred: onnx.ModelProto = onnx.shape_inference.infer_shapes(result)
    return inferred


def far_feed(planned: Planned, seed: int) -> dict[str, npt.NDArray[Any]]:
    return {name: np.float32(FAR) * value for name, value in feeds_for(planned.model, 1, seed=seed)[0].items()}


def codes_stay_in_their_grids(planned: Planned, activation_bits: int, *, optimise: bool, seed: int) -> None:
    proto = emitted(planned)
    names = codes_of(planned, proto)
    if not names:  # a placement may keep all of a small network in float
        assert all(op.runs == "float" for op in planned.plan.ops.values())
        return
    session = open_session(exposed(proto, list(names.values())), threads=1, optimise=optimise, settings=settings_for(planned.target))
    values = run_session(session, far_feed(planned, seed), list(names.values()))
    for tensor, name in names.items():
        grid = planned.plan.tensors[tensor].grid
        assert grid is not None and grid.bits in (activation_bits, 8) and values[name].dtype == grid.dtype
        assert grid.qmin <= values[name].min() and values[name].max() <= grid.qmax, f"{tensor}: {grid.bits} bits"


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
def test_the_census_counts_clips_and_products(target: str, tmp_path: Path) -> None:
    results = []
    for activation_bits in (8, 6):
        sketch = Sketch()
        planned = plan_for(sketch.model(CLIPS["one for all layers that read a stream"][0](sketch)), target, bits=(8, activation_bits))
        feed = feeds_for(planned.model, 1)[0]
        results.append(take_census(emitted(planned), planned.plan, planned.offers, feed, settings_for(planned.target), tmp_path))
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
    assert narrow.verdict.census.coverage == wide.census.coverage > 0.5
    assert (narrow.verdict.parity_db or 0.0) > 100.0
    written = Counter(n.op_type for n in onnx.load(tmp_path / "out.onnx").graph.node)
    assert narrow.verdict.census.kernels["Clip"] == written["Clip"] > wide.census.kernels.get("Clip", 0)
    record = json.loads(report_json(narrow))
    assert set(record["tensor_bits"]) == {bits[3], "8"} and set(record["weight_bits"]) == {bits[1]}
