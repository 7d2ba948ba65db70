"""Operators by the runtime's own kernels, for a simulation that agrees with it to the last bit.

Two implementations of LayerNorm or Softmax differ in the last bits, and each has its own answer to 0/0, to a cast of
infinity and to equal scores in a TopK. In front of a rounding step the last bits are enough to move a few codes, and
deep networks amplify a moved code. A simulation that takes these operators from the runtime, alone or in regions that the
runtime may join, and does the rest itself shows differences only where the integer arithmetic differs. It also knows
every operator that the runtime knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import torch
from onnx import AttributeProto, helper, numpy_helper

from converter.errors import ModelError
from converter.graph.operator_sets import CANONICAL_OPSET, PRODUCTS, RECURRENT
from converter.runtime.session import open_session, run_session
from converter.torch_backend import ops as torch_ops
from converter.torch_backend.float_regions import Region, region_graph

__all__ = ["Sessions", "runtime_operator", "runtime_region"]

Sessions = dict[object, Any]
"""Those that were opened for operators and regions of one model. It grows; give the same one again to open none twice."""

_IR_VERSION = 9

_REARRANGED = PRODUCTS | RECURRENT
"""Operators whose kernel depends on whether their weights are constants, which the runtime rearranges beforehand."""

_SMALL = 1024
"""Elements up to which a constant is part of the one-node model: shapes and axes, which some kernels want to know beforehand."""

_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_IR_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def runtime_operator(
    op_type: str,
    inputs: Sequence[Any],
    attributes: Mapping[str, Any],
    outputs: int = 1,
    *,
    constants: Collection[int] = (),
    sessions: Sessions | None = None,
) -> list[Any]:
    """Run one operator in ONNX Runtime, on one thread. Not differentiable; the same bits for the same arguments.

    Args:
        op_type: of the canonical opset.
        inputs: tensors of any shape and of a type that NumPy has, None where optional and absent, or a list of tensors
            where the operator takes a sequence.
        attributes: plain Python values; tensors as NumPy arrays.
        constants: indices of inputs that are constants of the model.
        sessions: those opened so far.

    Returns:
        as many tensors, or lists of tensors, as were asked for.

    Raises:
        torch_ops.UnknownOperatorError: it holds a graph, or the runtime cannot run it by itself.
    """
    arrays = [_arrays(x) for x in inputs]
    stored = frozenset(i for i in constants if isinstance(arrays[i], np.ndarray) and (op_type in _REARRANGED or arrays[i].size <= _SMALL))
    described = [_digest(a) if i in stored else _signature(a) for i, a in enumerate(arrays)]
    key = (op_type, outputs, stored, tuple(described), tuple((name, _attribute_key(value)) for name, value in sorted(attributes.items())))
    opened = {} if sessions is None else sessions
    feed = {f"x{i}": a for i, a in enumerate(arrays) if a is not None and i not in stored}
    try:
        if key not in opened:
            opened[key] = open_session(_one_node(op_type, arrays, attributes, outputs, stored), threads=1)
        results = list(run_session(opened[key], feed).values())
    except ModelError as error:
        raise torch_ops.UnknownOperatorError(f"operator '{op_type}' by itself: {error.what}") from error
    return [_tensors(result) for result in results]


def runtime_region(
    region: Region, inputs: Sequence[Any], sessions: Sessions, others: Mapping[str, npt.NDArray[Any]] = MappingProxyType({})
) -> list[Any]:
    """Run float operators as one model in ONNX Runtime, on one thread.

    Args:
        region: of the model whose sessions these are.
        inputs: its inputs, tensors or lists of them.
        others: what stands for some of its constants, by their names.

    Returns:
        its outputs.

    Raises:
        torch_ops.UnknownOperatorError: an operator holds a graph, or the runtime cannot run it.
    """
    if not region.outputs:
        return []
    arrays = [_arrays(x) for x in inputs]
    names = [str(v.name) for v in region.inputs]
    changed = tuple((name, _digest(array)) for name, array in others.items())
    key = (tuple(n.name for n in region.nodes), tuple(_signature(a) for a in arrays), changed)
    try:
        if key not in sessions:
            holding = next((n for n in (*region.context, *region.nodes) if any(a.type in _IR_GRAPHS for a in n.attributes.values())), None)
            if holding is not None:
                raise torch_ops.UnknownOperatorError(f"operator '{holding.op_type}', which holds a graph")
            declared = [_declared(name, array) for name, array in zip(names, arrays, strict=True)]
            sessions[key] = open_session(_model(region_graph(region, declared, others)), threads=1)
        results = run_session(sessions[key], dict(zip(names, arrays, strict=True)), [str(v.name) for v in region.outputs])
    except ModelError as error:
        raise torch_ops.UnknownOperatorError(f"float operators by themselves: {error.what}") from error
    return [_tensors(results[str(v.name)]) for v in region.outputs]


def _arrays(x: Any) -> Any:
    """A tensor as a NumPy array that is contiguous (a scalar stays one), a sequence of them as a list, None as it is."""
    if isinstance(x, torch.Tensor):
        return np.require(x.detach().numpy(), requirements="C")
    return None if x is None else [_arrays(item) for item in x]


def _tensors(result: Any) -> Any:
    if isinstance(result, list):
        return [_tensors(item) for item in result]
    try:
        return torch.from_numpy(np.asarray(result, result.dtype.str))  # of two 64-bit integers torch knows only one by its type
    except TypeError as error:
        raise torch_ops.UnknownOperatorError(f"values of type {result.dtype}") from error


def _signature(x: Any) -> object:
    """What a session has to know of an input: types and shapes."""
    if isinstance(x, np.ndarray):
        return x.dtype.str, x.shape
    return None if x is None else ("sequence", *(item.dtype.str for item in x[:1]))


def _digest(array: npt.NDArray[Any]) -> object:
    return array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).hexdigest()


def _attribute_key(value: Any) -> object:
    return _digest(value) if isinstance(value, np.ndarray) else repr(value)


def _one_node(op_type: str, arrays: Sequence[Any], attributes: Mapping[str, Any], outputs: int, stored: Collection[int]) -> onnx.ModelProto:
    """A model of one operator, some of whose inputs are constants. The runtime finds out the types of the outputs."""
    names = ["" if a is None else f"x{i}" for i, a in enumerate(arrays)]
    made = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op_type, names, made)
    node.attribute.extend(_attribute(op_type, name, value) for name, value in attributes.items())
    inputs = [_declared(names[i], a) for i, a in enumerate(arrays) if a is not None and i not in stored]
    constants = [numpy_helper.from_array(arrays[i], names[i]) for i in sorted(stored)]
    graph = helper.make_graph([node], "one_node", inputs, [onnx.ValueInfoProto(name=name) for name in made], constants)
    return _model(graph)


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", CANONICAL_OPSET)], ir_version=_IR_VERSION)


def _declared(name: str, x: Any) -> onnx.ValueInfoProto:
    if isinstance(x, np.ndarray):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    return helper.make_tensor_sequence_value_info(name, helper.np_dtype_to_tensor_dtype(x[0].dtype) if x else onnx.TensorProto.FLOAT, None)


def _attribute(op_type: str, name: str, value: Any) -> onnx.AttributeProto:
    """An attribute of the type that the operator's definition gives it: a list of numbers may be empty.

    Raises:
        torch_ops.UnknownOperatorError: it is a graph, or there is no such operator or attribute.
    """
    try:
        kind = onnx.defs.get_schema(op_type, CANONICAL_OPSET).attributes[name].type
    except (onnx.defs.SchemaError, KeyError) as error:
        raise torch_ops.UnknownOperatorError(f"operator '{op_type}' with {name}={value!r}") from error
    if int(kind) in _GRAPHS:
        raise torch_ops.UnknownOperatorError(f"operator '{op_type}', which holds a graph")
    return helper.make_attribute(name, numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value, attr_type=int(kind))
