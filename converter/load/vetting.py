"""Vetting: refuse a float model that cannot be converted, and say where and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, numpy_helper

from converter.errors import ModelError
from converter.graph.operator_sets import PRODUCTS, RECURRENT, VIEWS
from converter.graph.protos import graphs_of, nodes_of
from converter.graph.shape_inference import check_model
from converter.graph.weight_files import array_of
from converter.load import metadata

__all__ = [
    "OLDEST_OPSET",
    "STANDARD_DOMAINS",
    "place_of",
    "refuse_damaged_names",
    "refuse_invalid",
    "refuse_large",
    "type_name",
    "vet_contents",
    "vet_operators",
]

OLDEST_OPSET = 9

STANDARD_DOMAINS = ("", "ai.onnx")
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
# QuantizeLinear, DynamicQuantizeMatMul, QLinearConv, QAttention, MatMulInteger, ConvIntegerToFloat, MatMulNBits, ...
_QUANTIZED_OP = re.compile(r"(Dynamic)?(De)?[Qq]uantize.*|QLinear.*|Q[A-Z].*|(MatMul|Conv)(Integer|NBits|Bnb4).*")
# What multiplies its operands, so that an infinite one is a damaged weight and no mask or limit.
_NORMALIZATIONS = {"BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization", "RMSNormalization"}
_LAYERS = PRODUCTS | RECURRENT | _NORMALIZATIONS | {"DeformConv", "Einsum", "PRelu"}
_HIDDEN = "deprecated"
_FUSED = "convert the model as it was before ONNX Runtime fused its operators; the basic optimisation level leaves them alone"
_HANDS_ON = VIEWS | {"Cast", "CastLike", "Identity", "Transpose"}


def vet_operators(path: Path, model: onnx.ModelProto) -> None:
    """Refuse a model with operators that are not supported, before its local functions are inlined.

    Raises:
        ModelError: names the node.
    """
    _refuse_quantized(path, model)
    _refuse_foreign_domains(path, model)
    _refuse_opset(path, model)


def vet_contents(path: Path, model: onnx.ModelProto) -> None:
    """Refuse a model that is invalid or holds unsupported numbers; its external data must have been read, its functions inlined.

    Raises:
        ModelError: names the node or tensor.
    """
    _refuse_bad_weights(path, model)
    _refuse_shapeless(path, model)
    refuse_invalid(path, model)


def refuse_damaged_names(path: Path, model: onnx.ModelProto) -> None:
    """Refuse a model with a name that is not UTF-8: protobuf gives it as bytes, which nothing expects.

    Raises:
        ModelError: shows the name.
    """
    pending: list[Message] = [model]
    while pending:
        for value in _texts_and_parts(pending.pop()):
            if isinstance(value, Message):
                pending.append(value)
            elif isinstance(value, bytes):
                hint = "export or download the model again"
                raise ModelError(f"the name {value[:40]!r} in the file is not text", where=str(path), hint=hint)


def _texts_and_parts(message: Message) -> Iterator[str | bytes | Message]:
    if isinstance(message, TensorProto):  # its numbers are not touched: they may be many
        yield from (message.name, message.doc_string, *message.external_data)
        return
    for field, value in message.ListFields():
        if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE):
            yield from [value] if isinstance(value, (str, bytes, Message)) else value


def place_of(path: Path, node: NodeProto) -> str:
    """Where a message puts a node: the file, and its name or that of its first output."""
    return f"{path}, node '{node.name or next(iter(node.output), node.op_type)}'"


def _refuse_foreign_domains(path: Path, model: onnx.ModelProto) -> None:
    functions = {(f.domain, f.name) for f in model.functions}
    for node in nodes_of(model):
        if node.domain not in STANDARD_DOMAINS and (node.domain, node.op_type) not in functions:
            raise ModelError(
                f"operator '{node.op_type}' belongs to the unsupported domain '{node.domain}'",
                where=place_of(path, node),
                hint=_FUSED if node.domain.startswith("com.microsoft") else "export with standard ONNX operators only",
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
    for node in nodes_of(model):
        if (node.domain, node.op_type) not in functions and _QUANTIZED_OP.fullmatch(node.op_type):
            raise ModelError(
                f"the model is already quantized (operator '{node.op_type}')",
                where=place_of(path, node),
                hint="convert the float model instead",
            )
    for entry in model.metadata_props:
        if entry.key == metadata.VERSION:
            what = f"the model is already converted, by bridgequant {entry.value}"
            raise ModelError(what, where=str(path), hint="convert the float model instead")


def _refuse_bad_weights(path: Path, model: onnx.ModelProto) -> None:
    for graph in graphs_of(model):
        if isinstance(graph, GraphProto):
            for initializer in graph.initializer:
                _check_constant(path, graph, initializer, initializer.name, "weight")
            if graph.sparse_initializer:
                name = graph.sparse_initializer[0].values.name
                raise ModelError(f"weight '{name}' is sparse", where=str(path), hint="export the model with dense weights")
        for node in graph.node:
            name = next(iter(node.output), "")
            for attribute in node.attribute:
                numbers = np.asarray([attribute.f, *attribute.floats], np.float32)
                if attribute.type == AttributeProto.TENSOR:
                    _check_constant(path, graph, attribute.t, name, "constant")
                elif not np.isfinite(numbers).all() and node.op_type == "Constant":
                    _check_constant(path, graph, numpy_helper.from_array(numbers), name, "constant")
                elif np.isnan(numbers).any():
                    what = f"attribute '{attribute.name}' of operator '{node.op_type}' is NaN"
                    raise ModelError(what, where=place_of(path, node), hint="train or export the model again")


def _check_constant(path: Path, graph: GraphProto | FunctionProto, tensor: TensorProto, name: str, kind: str) -> None:
    where = f"{path}, tensor '{name}'"
    try:
        array = array_of(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{kind} '{name}' is damaged: {error}", where=where, hint="export the model again") from None
    if tensor.data_type not in _FLOATS:
        return
    numbers = array.astype(np.float32) if array.dtype.itemsize == 2 else array
    if np.isnan(numbers).any():
        raise ModelError(f"{kind} '{name}' holds NaN", where=where, hint="train or export the model again")
    if np.isinf(numbers).any() and _feeds_layer(graph, name):
        raise ModelError(f"{kind} '{name}' holds Inf", where=where, hint="train or export the model again")


def _feeds_layer(graph: GraphProto | FunctionProto, name: str) -> bool:
    pending, seen = [name], set[str]()
    while pending:
        tensor = pending.pop()
        for node in (n for n in graph.node if tensor and tensor in n.input):
            if node.op_type in _LAYERS:
                return True
            pending += [o for o in node.output if node.op_type in _HANDS_ON and o not in seen]
            seen.update(node.output)
    return False


def type_name(data_type: int) -> str:
    """How ONNX calls an element type, in lower case."""
    known = data_type in TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(data_type)).lower() if known else f"of the unknown type {data_type}"


def _refuse_shapeless(path: Path, model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            hint = "export it with a shape; dimensions may be symbolic"
            raise ModelError(f"'{value.name}' has no shape", where=f"{path}, tensor '{value.name}'", hint=hint)


def refuse_large(path: Path, model: onnx.ModelProto) -> None:
    """Refuse what protobuf cannot hold.

    Raises:
        ModelError: it is over 2 GB.
    """
    if model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
        raise ModelError("models over 2 GB are not supported", where=str(path), hint="convert a smaller model")


def refuse_invalid(path: Path, model: onnx.ModelProto) -> None:
    """Refuse what the onnx checker refuses, and models too large for it.

    Raises:
        ModelError: says what the checker says.
    """
    refuse_large(path, model)
    try:
        check_model(_without_deprecated(model))
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"the model is not valid ONNX: {first}", where=str(path), hint="export the model again") from None


def _without_deprecated(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model as the checker should see it: deprecated operators that still have a definition hidden in a domain of their own.

    GroupNormalization of opset 18 is one; the runtime runs it.
    """
    version = next(o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS)
    names = {n.op_type for n in model.graph.node if n.domain == "" and onnx.defs.has(n.op_type, max_inclusive_version=version)}
    schemas = {name: onnx.defs.get_schema(name, max_inclusive_version=version) for name in names}
    hidden = {name for name, s in schemas.items() if s.deprecated and (s.has_function or s.has_context_dependent_function)}
    if not hidden:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for node in result.graph.node:
        node.domain = _HIDDEN if node.op_type in hidden else node.domain
    result.opset_import.append(onnx.helper.make_opsetid(_HIDDEN, 1))
    return result
