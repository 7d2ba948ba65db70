"""Why no ``com.microsoft`` operator is written: the one that could pay does not. Skipped unless ``python -m tools.arm64.setup`` was run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converter.runtime.session import open_session, run_session
from converter.testing.sketch import Sketch, emitted, feeds_for, plan_for
from runtime_tests.emulation.count import count
from runtime_tests.emulation.environment import environment
from runtime_tests.emulation.setup import missing_steps

BATCH, HEADS, TOKENS, WIDTH = 4, 4, 256, 16


def integer_products() -> onnx.ModelProto:
    """softmax(q k^T) v with both products in integer, the numbers rounded on their way in."""
    s = Sketch()
    q, k, v = (s.input(name, BATCH, HEADS, TOKENS, WIDTH) for name in "qkv")
    shares = s.add("Softmax", s.add("MatMul", q, s.add("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    return emitted(plan_for(s.model(s.add("MatMul", shares, v))))


def fused() -> onnx.ModelProto:
    """The same by the runtime's own operator, which takes and gives tokens with the heads side by side, in float."""
    shape = [BATCH, TOKENS, HEADS * WIDTH]
    node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain="com.microsoft", num_heads=HEADS, scale=1.0)
    graph = helper.make_graph(
        [node],
        "fused",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "qkv"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=8)


def test_both_compute_the_same_attention() -> None:
    s = Sketch()
    inputs = [s.input(name, BATCH, HEADS, TOKENS, WIDTH) for name in "qkv"]
    (feed,) = feeds_for(s.model(*(s.add("Identity", x) for x in inputs)), 1)
    side_by_side = {name: x.transpose(0, 2, 1, 3).reshape(BATCH, TOKENS, -1) for name, x in feed.items()}
    (one,) = run_session(open_session(integer_products()), feed).values()
    (other,) = run_session(open_session(fused()), side_by_side).values()
    assert np.corrcoef(one.transpose(0, 2, 1, 3).reshape(-1), other.reshape(-1))[0, 1] > 0.99


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_steps(environment())), reason="the ARM64 emulation is not set up (python -m tools.arm64.setup)")
def test_the_fused_attention_takes_more_instructions(tmp_path: Path) -> None:
    paths = [tmp_path / "integer.onnx", tmp_path / "fused.onnx"]
    for path, model in zip(paths, (integer_products(), fused()), strict=True):
        path.write_bytes(model.SerializeToString())
    integer, attention = count(paths, "cortex-a76")
    assert attention.median > 1.05 * integer.median
