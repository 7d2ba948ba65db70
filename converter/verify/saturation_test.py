"""x86: AVX2 adds two products of 8-bit numbers in 16 bits. With 7-bit weights or activations nothing saturates, whatever the values are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.runtime.session import open_session, run_session
from converter.testing.sketch import Planned, Sketch, emitted, feeds_for, parity, plan_for
from converter.verify.simulation import simulate

CPU = Path("/proc/cpuinfo")
FLAGS = set(CPU.read_text().split()) if CPU.exists() else set()
saturates = pytest.mark.skipif(
    "avx2" not in FLAGS or bool(FLAGS & {"avx_vnni", "avx512_vnni"}), reason="only x86 processors with AVX2 and without VNNI saturate"
)

EXTREME = st.sampled_from([-1.0, 1.0])


def conv(s: Sketch, extremes: np.ndarray, *, depthwise: bool = False) -> str:
    group = 16 if depthwise else 1
    weight = np.resize(extremes, (16, 16 // group, 3, 3))
    return s.add("Conv", s.input("x", 1, 16, 8, 8), s.constant(weight), group=group, pads=[1] * 4, name="layer")


def gemm(s: Sketch, extremes: np.ndarray) -> str:
    return s.add("Sigmoid", s.add("Gemm", s.input("x", 4, 64), s.constant(np.resize(extremes, (64, 16))), s.normal(16), name="layer"))


def matmul(s: Sketch, extremes: np.ndarray) -> str:
    return s.add("MatMul", s.input("x", 2, 4, 64), s.constant(np.resize(extremes, (64, 16))), name="layer")


LAYERS: dict[str, Callable[[Sketch, np.ndarray], str]] = {
    "conv": conv,
    "depthwise conv": lambda s, e: conv(s, e, depthwise=True),
    "gemm": gemm,
    "matmul": matmul,
}


def planned(layer: Callable[[Sketch, np.ndarray], str], extremes: np.ndarray, activation_bits: int = 8) -> Planned:
    """A layer whose weights all have the largest magnitude; the inputs reach both ends of their grid."""
    sketch = Sketch()
    return plan_for(sketch.model(layer(sketch, extremes)), "x86", bits=(8, activation_bits))


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@given(extremes=st.lists(EXTREME, min_size=3, max_size=40))
@settings(max_examples=8, deadline=None)
def test_the_default_session_equals_the_simulation(layer: Callable[[Sketch, np.ndarray], str], extremes: list[float]) -> None:
    case = planned(layer, np.asarray(extremes))
    assert parity(case, emitted(case), settings={}) == 200.0


@pytest.mark.parametrize("activation_bits", [7, 6])
@pytest.mark.parametrize("name", LAYERS)
@given(extremes=st.lists(EXTREME, min_size=1, max_size=40))
@settings(max_examples=5, deadline=None)
def test_eight_bit_weights_do_not_saturate_beside_narrow_activations(name: str, activation_bits: int, extremes: list[float]) -> None:
    """Whatever the inputs are: the Clip keeps far ones within the narrow grid."""
    case = planned(LAYERS[name], np.asarray(extremes), activation_bits)
    (weights,) = case.plan.ops["layer"].constants.values()
    assert weights.bits == 8
    session = open_session(emitted(case), threads=1)
    for feed in feeds_for(case.model, 3, seed=7):
        for factor in (1.0, 100.0, -100.0):
            far = {n: np.float32(factor) * np.abs(x) for n, x in feed.items()}
            for output, value in simulate(case.model, case.plan, far).items():
                np.testing.assert_array_equal(run_session(session, far)[output], value)


@saturates
@pytest.mark.parametrize("name", ["conv", "gemm", "matmul"])
def test_eight_bits_would_saturate(name: str) -> None:
    """The same layers, their weight grids stretched to 8 bits behind the target's back."""
    case = planned(LAYERS[name], np.asarray([1.0]))
    op = case.plan.ops["layer"]
    (index, grid), *_ = op.constants.items()
    assert grid.bits == 7
    wide = type(grid)(tuple(s * 63 / 127 for s in grid.scale), grid.zero_point, 8, True, grid.axis, narrow=True)
    changed = type(op)(op.op_type, op.runs, op.writes, {index: wide})
    plan = case.plan.with_ops(case.plan.tensors, {**case.plan.ops, "layer": changed})
    stretched = Planned(case.model, case.seen, case.offers, plan, case.target)
    assert parity(stretched, emitted(stretched), settings={}) < 40.0
