"""Vetting: refuse a float model that cannot be converted, and say where and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

from converter.errors import ModelError

__all__ = ["OLDEST_OPSET", "STANDARD_DOMAINS", "VERSION_KEY", "refuse_damaged_names", "tensors_of", "type_name", "vet"]

OLDEST_OPSET = 9
VERSION_KEY = "bridgequant.version"
"""Metadata by which a converted model is known."""

STANDARD_DOMAINS = ("", "ai.onnx")
# QuantizeLinear, DynamicQuantizeMatMul, QLinearConv, QAttention, MatMulInteger, ConvIntegerToFloat, MatMulNBits, ...
_QUANTIZED_OP = re.compile(r"(Dynamic)?(De)?[Qq]uantize.*|QLinear.*|Q[A-Z].*|(MatMul|Conv)(Integer|NBits|Bnb4).*")
# Where an infinite constant is a limit or a mask, and no weight.
_TAKES_INFINITY = ("Clip", "Min", "Max", "Where", "Pad", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "ConstantOfShape")


def vet(path: Path, model: onnx.ModelProto) -> None:
    """Refuse a model that is invalid or unsupported; its external data must have been read.

    Raises:
        ModelError: names the node or tensor.
    """
    _refuse_quantized(path, model)
    _refuse_foreign_domains(path, model)
    _refuse_opset(path, model)
    _refuse_control_flow(path, model)
    _refuse_bad_weights(path, model)
    _refuse_shapeless(path, model)
    _refuse_invalid(path, model)


def refuse_damaged_names(path: Path, model: onnx.ModelProto) -> None:
    """Refuse a model with a name that is not UTF-8: protobuf gives it as bytes, which nothing expects.

    Raises:
        ModelError: shows the name.
    """
    entries = (*model.metadata_props, *model.opset_import)
    names: list[object] = [getattr(p, f.name) for p in entries for f in p.DESCRIPTOR.fields]
    names += [v.name for v in (*model.graph.input, *model.graph.output, *model.graph.value_info)]
    names += [t.name for t in tensors_of(model)]
    for node in _nodes(model):
        names += [node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)]
    for name in names:
        if isinstance(name, bytes):
            raise ModelError(f"the name {name[:40]!r} in the file is not text", where=str(path), hint="export or download the model again")


def _graphs(model: onnx.ModelProto) -> Iterator[GraphProto | onnx.FunctionProto]:
    """The main graph, local functions, and the subgraphs of their nodes."""
    pending: list[GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        yield graph
        for attribute in (a for n in graph.node for a in n.attribute):
            pending.extend([attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs)


def _nodes(model: onnx.ModelProto) -> Iterator[NodeProto]:
    for graph in _graphs(model):
        yield from graph.node


def tensors_of(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Tensors in initializers and attributes, those of sparse ones included."""
    for graph in _graphs(model):
        if isinstance(graph, GraphProto):
            yield from graph.initializer
            yield from (t for s in graph.sparse_initializer for t in (s.values, s.indices))
    for attribute in (a for n in _nodes(model) for a in n.attribute):
        yield from [attribute.t] if attribute.type == AttributeProto.TENSOR else attribute.tensors
        if attribute.type == AttributeProto.SPARSE_TENSOR:
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)


def _place(path: Path, node: NodeProto) -> str:
    return f"{path}, node '{node.name or next(iter(node.output), node.op_type)}'"


def _refuse_foreign_domains(path: Path, model: onnx.ModelProto) -> None:
    functions = {(f.domain, f.name) for f in model.functions}
    for node in _nodes(model):
        if node.domain not in STANDARD_DOMAINS and (node.domain, node.op_type) not in functions:
            raise ModelError(
                f"operator '{node.op_type}' belongs to the unsupported domain '{node.domain}'",
                where=_place(path, node),
                hint="export with standard ONNX operators only",
            )


def _refuse_opset(path: Path, model: onnx.ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    version = next((o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS), None)
    if version is None:
        raise ModelError("the model imports no standard operator set", where=str(path), hint="export the model again")
    if version > newest:
        raise ModelError(
            f"opset {version} is newer than the installed onnx package knows ({newest})",
            where=str(path),
            hint=f"export with opset {newest} or older, or upgrade the onnx package",
        )
    if version < OLDEST_OPSET:
        raise ModelError(
            f"opset {version} is too old; the oldest supported is {OLDEST_OPSET}",
            where=str(path),
            hint=f"export with opset {OLDEST_OPSET} or newer",
        )


def _refuse_quantized(path: Path, model: onnx.ModelProto) -> None:
    functions = {(f.domain, f.name) for f in model.functions}
    for node in _nodes(model):
        if (node.domain, node.op_type) not in functions and _QUANTIZED_OP.fullmatch(node.op_type):
            raise ModelError(
                f"the model is already quantized (operator '{node.op_type}')",
                where=_place(path, node),
                hint="convert the float model instead",
            )
    for entry in model.metadata_props:
        if entry.key == VERSION_KEY:
            what = f"the model is already converted, by bridgequant {entry.value}"
            raise ModelError(what, where=str(path), hint="convert the float model instead")


def _refuse_control_flow(path: Path, model: onnx.ModelProto) -> None:
    for node in _nodes(model):
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            raise ModelError(
                f"operator '{node.op_type}' holds a graph of its own; control flow is not supported",
                where=_place(path, node),
                hint="export by tracing with fixed conditions, or simplify the model with onnxsim first",
            )


def _refuse_bad_weights(path: Path, model: onnx.ModelProto) -> None:
    for graph in _graphs(model):
        if isinstance(graph, GraphProto):
            for initializer in graph.initializer:
                _check_constant(path, graph, initializer, initializer.name, "weight")
            if graph.sparse_initializer:
                name = graph.sparse_initializer[0].values.name
                raise ModelError(f"weight '{name}' is sparse", where=str(path), hint="export the model with dense weights")
        for node in graph.node:
            if node.op_type != "Constant":
                continue
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    _check_constant(path, graph, attribute.t, node.output[0], "constant")
                elif not np.isfinite([attribute.f, *attribute.floats]).all():
                    tensor = numpy_helper.from_array(np.asarray([attribute.f, *attribute.floats], np.float32))
                    _check_constant(path, graph, tensor, node.output[0], "constant")


def _check_constant(path: Path, graph: GraphProto | onnx.FunctionProto, tensor: TensorProto, name: str, kind: str) -> None:
    where = f"{path}, tensor '{name}'"
    if tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        raise ModelError(f"{kind} '{name}' is {type_name(tensor.data_type)}", where=where, hint="export the model in float32")
    if tensor.data_type not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        return
    try:
        array = numpy_helper.to_array(tensor)
    except ValueError as error:
        raise ModelError(f"{kind} '{name}' is damaged: {error}", where=where, hint="export the model again") from None
    if np.isnan(array).any():
        raise ModelError(f"{kind} '{name}' holds NaN", where=where, hint="train or export the model again")
    if np.isinf(array).any() and not _only_limits(graph, name):
        raise ModelError(f"{kind} '{name}' holds Inf", where=where, hint="train or export the model again")


def _only_limits(graph: GraphProto | onnx.FunctionProto, name: str) -> bool:
    users = [node for node in graph.node if name in node.input]
    return bool(users) and all(node.op_type in _TAKES_INFINITY for node in users)


def type_name(data_type: int) -> str:
    """How ONNX calls an element type, in lower case."""
    known = data_type in TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(data_type)).lower() if known else f"of the unknown type {data_type}"


def _refuse_shapeless(path: Path, model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            hint = "export it with a shape; dimensions may be symbolic"
            raise ModelError(f"'{value.name}' has no shape", where=f"{path}, tensor '{value.name}'", hint=hint)


def _refuse_invalid(path: Path, model: onnx.ModelProto) -> None:
    if model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
        raise ModelError("models over 2 GB are not supported", where=str(path), hint="convert a smaller model")
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"the model is not valid ONNX: {first}", where=str(path), hint="export the model again") from None
