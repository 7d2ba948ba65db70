"""Emitted models in the oldest ONNX Runtime that is supported, in a process of its own: the same kernels, the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converter.runtime.session import open_session, run_session
from converter.testing.oldest_runtime import OLDEST, read_oldest, run_oldest
from converter.testing.sketch import TARGET_NAMES, Sketch, emitted, feeds_for, kernels_of, plan_for, settings_for
from converter.verify.ort_format import ort_format

pytestmark = pytest.mark.skipif(not OLDEST.is_dir(), reason=f"there is no older ONNX Runtime in {OLDEST}; the Makefile installs one")


def image_network(s: Sketch) -> tuple[str, ...]:
    """Every integer form, and every barrier, in a row."""
    x = s.conv(s.input("x", 1, 3, 16, 16), 3, outputs=16)
    x = s.add("Add", x, s.conv(s.silu(x), 16, group=16))
    x = s.add("MaxPool", s.add("HardSwish", s.conv(x, 16)), kernel_shape=[2, 2], strides=[2, 2])
    x = s.add("AveragePool", s.add("Relu", s.conv(x, 16)), kernel_shape=[3, 3], pads=[1] * 4)
    left, right = s.split("Split", s.conv(x, 16), outputs=2, axis=1, num_outputs=2)
    x = s.add("Concat", s.conv(left, 8), s.add("LeakyRelu", s.conv(right, 8), alpha=0.1), axis=1)
    x = s.add("Resize", x, "", s.constant([1, 1, 2, 2]), mode="nearest")
    x = s.add("Mul", s.conv(x, 16), s.constant(0.5))
    return s.add("Gemm", s.add("Flatten", s.add("GlobalAveragePool", x)), s.normal(16, 5), s.normal(5)), x


def token_network(s: Sketch) -> tuple[str, ...]:
    x = s.add("MatMul", s.input("x", 2, 16, 24), s.normal(24, 24, scale=0.2))
    key = s.add("Transpose", s.add("MatMul", x, s.normal(24, 24, scale=0.2)), perm=[0, 2, 1])
    scores = s.add("Softmax", s.add("Add", s.add("MatMul", x, key), s.normal(16, 16)), axis=-1)
    return (s.add("MatMul", s.add("MatMul", scores, x), s.normal(24, 6)),)


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize(("network", "exact"), [(image_network, True), (token_network, False)])
def test_the_oldest_runtime_runs_the_same_kernels(
    network: Callable[[Sketch], tuple[str, ...]], exact: bool, target: str, tmp_path: Path
) -> None:
    sketch = Sketch()
    model = sketch.model(*network(sketch))
    planned = plan_for(model, target)
    proto, feed = emitted(planned), feeds_for(model, 1, seed=5)[0]
    settings = settings_for(planned.target)
    old = run_oldest(proto, feed, settings, tmp_path)
    assert old["version"].startswith("1.19.")
    new_kernels = kernels_of(proto, planned.target, tmp_path)
    integer = {op: n for op, n in new_kernels.items() if op.startswith("QLinear") or op in ("QGemm", "MatMulIntegerToFloat")}
    assert {op: old["kernels"].get(op, 0) for op in integer} == integer
    assert old["kernels"].get("QLinearSoftmax", 0) == old["kernels"].get("QLinearAveragePool", 0) == 0
    for name, value in run_session(open_session(proto, threads=1, settings=settings), feed).items():
        if exact:
            np.testing.assert_array_equal(old["outputs"][name], value)
        else:
            # a Softmax that differs in the last bit may move a code
            np.testing.assert_allclose(old["outputs"][name], value, atol=0.02 * float(np.abs(value).max()))


def test_the_oldest_runtime_reads_the_mobile_format(tmp_path: Path) -> None:
    """Written by the newest; ONNX Runtime promises only that newer ones read what older ones wrote."""
    sketch = Sketch()
    model = sketch.model(*image_network(sketch))
    planned = plan_for(model, "arm64")
    feed = feeds_for(model, 1, seed=5)[0]
    (tmp_path / "model.ort").write_bytes(ort_format(emitted(planned), planned.target, feed, {}))
    old = read_oldest(tmp_path / "model.ort", feed, tmp_path)
    for name, value in run_session(open_session(tmp_path / "model.ort", threads=1), feed).items():
        np.testing.assert_array_equal(old[name], value)
