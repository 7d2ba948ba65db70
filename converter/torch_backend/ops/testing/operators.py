"""The one checker of all operator rules: ONNX Runtime, without its optimisations, says what is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from onnx import helper

from converter.graph.queries import attributes
from converter.runtime.session import open_session, run_session
from converter.torch_backend import ops as torch_ops

Array = npt.NDArray[Any]


def floats(*shape: int, seed: int = 0) -> Array:
    """Normal random numbers, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> Array:
    """Random numbers from 0.5 to 2, float32."""
    return np.random.default_rng(0).uniform(0.5, 2.0, shape).astype(np.float32)


def ints(*values: int) -> Array:
    """A list of int64, as shapes and axes are given."""
    return np.asarray(values, np.int64)


def check_operator(
    op_type: str, inputs: Sequence[Array | None], outputs: int = 1, *, mapped: Sequence[int] | None = None, **attrs: Any
) -> None:
    """The rule gives what ONNX Runtime gives: types and shapes exactly, numbers to a relative 1e-5; and so it does for many samples.

    Args:
        op_type: the operator.
        inputs: None where an optional one is absent.
        outputs: how many.
        mapped: inputs that differ between samples; the first if None and it is float.
        attrs: of the operator.
    """
    names = ["" if a is None else f"x{i}" for i, a in enumerate(inputs)]
    node = helper.make_node(op_type, names, [f"y{i}" for i in range(outputs)], **attrs)
    graph = helper.make_graph(
        [node],
        "one node",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in zip(names, inputs, strict=True)
            if a is not None
        ],
        [helper.make_empty_tensor_value_info(name) for name in node.output],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    feed = {n: a for n, a in zip(names, inputs, strict=True) if a is not None}
    expected = run_session(open_session(model, threads=1, optimise=False), feed)
    tensors = [None if a is None else torch.from_numpy(a) for a in inputs]
    plain = attributes(ir.from_proto(node))
    got = torch_ops.apply(op_type, tensors, plain)
    assert len(got) == outputs
    _check_samples(op_type, tensors, plain, got, mapped if mapped is not None else [0] if _is_float(tensors[0]) else [])
    for name, tensor in zip(node.output, got, strict=True):
        value, right = tensor.numpy(), expected[name]
        assert (value.dtype, value.shape) == (right.dtype, right.shape)
        if right.size:
            gap = np.abs(value.astype(np.float64) - right.astype(np.float64)).max() / max(np.abs(right).max(), 1e-30)
            assert gap <= 1e-5, f"relative error {gap:.1e}"


def _is_float(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and tensor.is_floating_point()


def _check_samples(
    op_type: str, tensors: Sequence[torch.Tensor | None], attrs: dict[str, Any], single: Sequence[torch.Tensor], mapped: Sequence[int]
) -> None:
    """Two equal samples at once give what one gives, twice."""
    if not mapped:
        return

    def one(*samples: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = list(tensors)
        for index, sample in zip(mapped, samples, strict=True):
            inputs[index] = sample
        return tuple(torch_ops.apply(op_type, inputs, attrs))

    samples = [torch.stack([t, t]) for t in (tensors[i] for i in mapped) if t is not None]
    for both, right in zip(torch.func.vmap(one)(*samples), single, strict=True):
        assert both.dtype == right.dtype
        for value in both:
            torch.testing.assert_close(value, right, rtol=1e-5, atol=1e-6, equal_nan=True)
