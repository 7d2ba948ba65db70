"""Networks with few bits, and whether their codes stay within their grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from hypothesis import strategies as st
from onnx import helper

from converter.runtime.session import open_session, run_session
from converter.testing.sketch import Planned, Sketch, emitted, feeds_for, settings_for

CHANNELS = 8

FAR = 1000.0
"""Inputs are this many times what was calibrated."""

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


def codes_of(planned: Planned, proto: onnx.ModelProto) -> dict[str, str]:
    """The name in the emitted graph of what readers take for each tensor's codes."""
    present = {o for n in proto.graph.node for o in n.output}
    tensors = [
        name for name, tensor_plan in planned.plan.tensors.items() if tensor_plan.params is not None and tensor_plan.kind != "derived"
    ]
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
        grid = planned.plan.tensors[tensor].params
        assert grid is not None and grid.bits in (activation_bits, 8) and values[name].dtype == grid.dtype
        assert grid.qmin <= values[name].min() and values[name].max() <= grid.qmax, f"{tensor}: {grid.bits} bits"
