"""What the tests of all rewrites share: a short way to write graphs, and the checks that every rewrite has to pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from converter.canonicalise.standard import infer_shapes
from converter.graph.builder import remove_dead
from converter.runtime.session import open_session, run_session

Array = npt.NDArray[Any]
Operand = str | float | Array | None
Shape = tuple[int | str | None, ...]


class Draft:
    """A graph in the making. Operands are names of tensors, numbers and arrays (which become initializers), or None."""

    def __init__(self, *, opset: int = 20, **inputs: Shape) -> None:
        self.opset = opset
        self.inputs = inputs
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, Array] = {}

    def constant(self, value: float | Array) -> str:
        """Register an initializer; returns its name."""
        name = f"constant_{len(self.initializers)}"
        array = np.asarray(value)
        self.initializers[name] = array.astype(np.float32) if array.dtype == np.float64 else array
        return name

    def add(self, op_type: str, *operands: Operand, outputs: int = 1, name: str = "", **attrs: Any) -> str:
        """Append a node; returns its first output."""
        name = name or f"{op_type}_{len(self.nodes)}"
        inputs = ["" if o is None else o if isinstance(o, str) else self.constant(o) for o in operands]
        results = [f"{name}_out{i or ''}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, results, name=name, **attrs))
        return results[0]

    def model(self, *outputs: str) -> onnx.ModelProto:
        """The finished model: shapes inferred and checked."""
        graph = helper.make_graph(
            self.nodes,
            "draft",
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in self.inputs.items()],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.initializers.items()],
        )
        imports = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=max(4, helper.find_min_ir_version_for(imports)))
        model = infer_shapes(model)
        onnx.checker.check_model(model, full_check=True)
        return model


def random_feed(model: onnx.ModelProto, sizes: Mapping[str, int] | None = None, seed: int = 0) -> dict[str, Array]:
    """Normal numbers, wide enough for activation functions to bend, for every input; open dimensions are 2 unless told."""
    generator = np.random.default_rng(seed)
    feed = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        shape = [d.dim_value or (sizes or {}).get(d.dim_param, 2) for d in dims]
        feed[value.name] = (3 * generator.standard_normal(shape)).astype(np.float32)
    return feed


def outputs_of(model: onnx.ModelProto, feed: Mapping[str, Array]) -> dict[str, Array]:
    """What the runtime computes without any rewriting of its own."""
    return run_session(open_session(model, optimise=False, threads=1), feed)


def assert_equal_outputs(model: onnx.ModelProto, other: onnx.ModelProto, feed: Mapping[str, Array], tolerance: float = 1e-5) -> None:
    """Both models give the same outputs, relative to the largest number."""
    expected, got = outputs_of(model, feed), outputs_of(other, feed)
    assert list(expected) == list(got)
    for name, right in expected.items():
        assert got[name].shape == right.shape
        gap = np.abs(got[name].astype(np.float64) - right).max() / max(np.abs(right).max(), 1e-30)
        assert gap <= tolerance, f"'{name}' differs by {gap:.1e}"


def rewrite(
    edit: Callable[[ir.Model], list[str]], model: onnx.ModelProto, sizes: Mapping[str, int] | None = None
) -> tuple[onnx.ModelProto, list[str]]:
    """Apply one rewrite and check what holds for all of them: valid ONNX, same inputs and outputs, same numbers, same names.

    Returns:
        the rewritten model, and what the rewrite says it changed.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    changed_model: ir.Model = ir.from_proto(copy)
    changed = edit(changed_model)
    remove_dead(changed_model)
    result: onnx.ModelProto = ir.to_proto(changed_model)
    onnx.checker.check_model(result, full_check=True)
    for kind in ("input", "output"):
        assert [v.name for v in getattr(result.graph, kind)] == [v.name for v in getattr(model.graph, kind)]
    if not changed:
        assert op_types(result) == op_types(model)
    assert_equal_outputs(model, result, random_feed(model, sizes))
    return result, changed


def op_types(model: onnx.ModelProto) -> list[str]:
    """Operator types in graph order."""
    return [n.op_type for n in model.graph.node]


def weights(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> Array:
    """Uniform random numbers, float32, none of them near zero."""
    values = np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)
    result: Array = values + np.float32(0.2) * np.where(values < 0, np.float32(-1), np.float32(1))
    return result
