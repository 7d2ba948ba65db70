"""Load: read a float ONNX model, refuse what cannot be converted, remember what must be kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from converter.errors import ModelError

__all__ = ["OLDEST_OPSET", "Source", "ValueInfo", "load"]

OLDEST_OPSET = 9
_STANDARD_DOMAINS = ("", "ai.onnx")
_QUANTIZED_OPS = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
}
_FLOAT_TYPES = {
    onnx.TensorProto.FLOAT: np.dtype(np.float32),
    onnx.TensorProto.INT64: np.dtype(np.int64),
    onnx.TensorProto.INT32: np.dtype(np.int32),
    onnx.TensorProto.BOOL: np.dtype(np.bool_),
    onnx.TensorProto.UINT8: np.dtype(np.uint8),
}


@dataclass(frozen=True)
class ValueInfo:
    """One input or output of the model.

    Attributes:
        name: as in the file.
        dtype: NumPy type of its elements.
        shape: an int for a fixed dimension, a string for a symbolic one, None for a nameless one; None if the rank is unknown.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class Source:
    """A float model as it was found.

    Attributes:
        path: the file.
        model: with external data loaded and local functions inlined.
        digest: sha256 of the file (hex).
        bytes: size of the file and its external data.
        inputs: model inputs that are not initializers, in order.
        outputs: model outputs, in order.
        metadata: ``metadata_props``, in order.
    """

    path: Path
    model: onnx.ModelProto
    digest: str
    bytes: int
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    metadata: dict[str, str]

    @property
    def opset(self) -> int:
        """Version of the standard operator set that the model imports."""
        return next(o.version for o in self.model.opset_import if o.domain in _STANDARD_DOMAINS)


def load(path: Path) -> Source:
    """Read and vet a float model.

    Raises:
        ModelError: the file is not a complete, valid, float ONNX model of a supported opset.
    """
    data = _read(path)
    model = _parse(path, data)
    external = _load_external_data(path, model)
    _refuse_foreign_domains(path, model)
    _refuse_opset(path, model)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _refuse_quantized(path, model)
    _refuse_bad_weights(path, model)
    _check(path, model)
    initializers = {i.name for i in model.graph.initializer}
    return Source(
        path=path,
        model=model,
        digest=hashlib.sha256(data).hexdigest(),
        bytes=len(data) + external,
        inputs=tuple(_value_info(path, i) for i in model.graph.input if i.name not in initializers),
        outputs=tuple(_value_info(path, o) for o in model.graph.output),
        metadata={p.key: p.value for p in model.metadata_props},
    )


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise ModelError("the input is a folder, not an ONNX file", where=str(path), hint="name the .onnx file inside it")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelError("the input file does not exist", where=str(path), hint="check the path") from None
    except OSError as error:
        raise ModelError(f"the input file cannot be read ({error.strerror})", where=str(path), hint="check its permissions") from None
    if not data:
        raise ModelError("the input file is empty", where=str(path), hint="export the model again")
    return data


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_from_string(data)
    except DecodeError:
        raise ModelError("the file is not ONNX, or is truncated", where=str(path), hint="export or download the model again") from None
    if not model.graph.node or not model.graph.output or not model.opset_import:
        raise ModelError("the file holds no ONNX graph", where=str(path), hint="export or download the model again")
    return model


def _load_external_data(path: Path, model: onnx.ModelProto) -> int:
    folder = path.resolve().parent
    tensors = list(onnx.external_data_helper._get_all_tensors(model))
    files: set[Path] = set()
    for tensor in tensors:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        outside = PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute()
        target = (folder / location).resolve()
        if not location or outside or not target.is_relative_to(folder):
            raise ModelError(
                f"external data of tensor '{tensor.name}' lies outside the model's folder ('{location}')",
                where=str(path),
                hint="save the model with its data beside it",
            )
        if not target.is_file():
            raise ModelError(
                f"external data file '{location}' is missing (tensor '{tensor.name}')",
                where=str(path),
                hint=f"put '{location}' into the same folder as the model",
            )
        files.add(target)
    if not files:
        return 0
    try:
        onnx.load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"external data cannot be read: {error}", where=str(path), hint="save the model again") from None
    for tensor in tensors:
        expected = int(np.prod(tensor.dims)) * _item_bits(tensor.data_type) // 8
        if tensor.HasField("raw_data") and len(tensor.raw_data) < expected:
            raise ModelError(
                f"external data of tensor '{tensor.name}' is truncated: {len(tensor.raw_data)} of {expected} bytes",
                where=str(path),
                hint="copy or save the model again",
            )
    return sum(f.stat().st_size for f in files)


def _item_bits(data_type: int) -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize) * 8


def _refuse_foreign_domains(path: Path, model: onnx.ModelProto) -> None:
    known = {*_STANDARD_DOMAINS, *(f.domain for f in model.functions)}
    graphs = [model.graph.node, *(f.node for f in model.functions)]
    for node in (n for nodes in graphs for n in nodes):
        if node.domain not in known:
            raise ModelError(
                f"operator '{node.op_type}' belongs to the unsupported domain '{node.domain}'",
                where=f"{path}, node '{node.name or node.output[0]}'",
                hint="export with standard ONNX operators only",
            )


def _refuse_opset(path: Path, model: onnx.ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    version = next((o.version for o in model.opset_import if o.domain in _STANDARD_DOMAINS), None)
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
    for node in model.graph.node:
        if node.op_type in _QUANTIZED_OPS:
            raise ModelError(
                f"the model is already quantized (operator '{node.op_type}')",
                where=f"{path}, node '{node.name or node.output[0]}'",
                hint="convert the float model instead",
            )


def _refuse_bad_weights(path: Path, model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            raise ModelError(f"weight '{tensor.name}' is float16", where=str(path), hint="export the model in float32")
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
            try:
                finite = bool(np.isfinite(numpy_helper.to_array(tensor)).all())
            except ValueError as error:
                raise ModelError(f"weight '{tensor.name}' is damaged: {error}", where=str(path), hint="export it again") from None
            if not finite:
                raise ModelError(f"weight '{tensor.name}' holds NaN or Inf", where=str(path), hint="retrain or export the model again")


def _check(path: Path, model: onnx.ModelProto) -> None:
    if model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
        raise ModelError("models over 2 GB are not supported", where=str(path), hint="convert a smaller model")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"the model is not valid ONNX: {first}", where=str(path), hint="export the model again") from None


def _value_info(path: Path, value: onnx.ValueInfoProto) -> ValueInfo:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type not in _FLOAT_TYPES:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type) if value.type.HasField("tensor_type") else "not a tensor"
        raise ModelError(f"input or output '{value.name}' has the unsupported type {kind}", where=str(path), hint="export in float32")
    shape: tuple[int | str | None, ...] | None = None
    if tensor.HasField("shape"):
        shape = tuple(
            d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else (d.dim_param if d.dim_param not in ("", "?") else None)
            for d in tensor.shape.dim
        )
    return ValueInfo(value.name, _FLOAT_TYPES[tensor.elem_type], shape)
