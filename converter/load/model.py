"""Load: read a float ONNX model, refuse what cannot be converted, remember what must be kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from converter.errors import ModelError
from converter.graph import weight_files
from converter.graph.protos import tensors_of
from converter.graph.weight_files import WeightFolder, memory_bytes, offload
from converter.load.control_flow import refuse_lasting_control_flow
from converter.load.external_data import load_external_data
from converter.load.files import check_input
from converter.load.half_precision import widen_halves
from converter.load.local_functions import drop_unused_functions, inline_functions
from converter.load.repair import drop_wrong_types, repair, sort_nodes, spell_standard_domain, state_output_shapes
from converter.load.stored_integers import read_stored_integers
from converter.load.vetting import STANDARD_DOMAINS, refuse_damaged_names, refuse_large, type_name, vet_contents, vet_operators

__all__ = ["GIVEN", "Source", "ValueInfo", "load", "load_as_it_is"]

GIVEN = Path("the given model")
"""What messages call a model that is in no file."""

_TYPES: dict[int, np.dtype[np.generic]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.INT32: np.dtype(np.int32),
    TensorProto.BOOL: np.dtype(np.bool_),
    TensorProto.UINT8: np.dtype(np.uint8),
}

_EXPORT_FIRST = "export the model to ONNX first, from PyTorch with torch.onnx.export(model.eval(), example, 'model.onnx')"
_OTHER_FORMATS = {
    **dict.fromkeys((".bin", ".ckpt", ".mlpackage", ".pt", ".pth", ".safetensors"), _EXPORT_FIRST),
    **dict.fromkeys((".h5", ".keras", ".pb", ".tflite"), "convert the float model to ONNX first, with python -m tf2onnx.convert"),
}
"""What to do with files that are none of ONNX, by their suffix."""

_WEB_PAGE = ("a web page", "download the file itself, from the page's link for raw files or downloads")
_BEGINNINGS = {
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch what it stands for with git lfs pull"),
    b"<!doctype html": _WEB_PAGE,
    b"<html": _WEB_PAGE,
    b"pk\x03\x04": ("a zip, as PyTorch saves them", _EXPORT_FIRST),
}
"""First bytes, in small letters, of files that are often taken for models."""

_WIDENED = "the model holds half precision numbers, which are computed in float32"
_READ = "weights are stored as integers; they were read as the float numbers they stand for and are quantized anew"


@dataclass(frozen=True)
class ValueInfo:
    """One input or output of the model.

    Attributes:
        name: as in the file.
        dtype: NumPy type of its elements.
        shape: an int for a fixed dimension, a string for a symbolic one, None for a nameless one.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Source:
    """A float model as it was found.

    Attributes:
        path: the file; :data:`GIVEN` for a model in memory.
        model: with external data loaded, local functions inlined, repaired, and its half precision numbers and its weights
            stored as integers made float32.
        digest: sha256 of the file, or of the given model (hex).
        bytes: size of the file and its external data.
        inputs: model inputs that are not initializers, in order.
        outputs: model outputs, in order.
        metadata: ``metadata_props``, in order.
        external: files with external data, read into the model.
        notes: sentences that the user should read about what was done to the model.
        weights: where the weights of a large model lie, which is there as long as this is; None if they are in the model.
    """

    path: Path
    model: onnx.ModelProto
    digest: str
    bytes: int
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    metadata: dict[str, str]
    external: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    weights: WeightFolder | None = None

    @property
    def opset(self) -> int:
        """Version of the standard operator set that the model imports."""
        return int(next(o.version for o in self.model.opset_import if o.domain in STANDARD_DOMAINS))


def load(given: str | Path | onnx.ModelProto) -> Source:
    """Read and vet a float model, from a file or from memory; what is given in memory is left as it is.

    Raises:
        ModelError: it is not a complete, valid, float ONNX model of a supported opset.
    """
    path = GIVEN if isinstance(given, onnx.ModelProto) else Path(given)
    data = _serialized(given) if isinstance(given, onnx.ModelProto) else _read(path)
    model = _parse(path, data)
    refuse_damaged_names(path, model)
    if path is GIVEN:
        _refuse_external_data(model)
    folders: list[WeightFolder] = []
    files = load_external_data(path, model, list(tensors_of(model)), lambda: _new_folder(folders))
    spell_standard_domain(path, model)
    drop_unused_functions(model)
    notes = [_READ] if read_stored_integers(model) else []
    vet_operators(path, model)
    sort_nodes(path, model)
    model = inline_functions(path, model)
    repair(path, model)
    state_output_shapes(model)
    vet_contents(path, model)
    drop_wrong_types(model)
    inputs, outputs = (tuple(_value_info(path, v) for v in values) for values in (model.graph.input, model.graph.output))
    if not inputs:
        raise ModelError("the model has no inputs, it is a constant", where=str(path), hint="export the model again")
    notes += [_WIDENED] if widen_halves(model) else []
    if folders or memory_bytes(model) > weight_files.MOST_IN_MEMORY:  # what was widened or computed meanwhile, and what a single file holds
        model = offload(model, folders[0].path if folders else _new_folder(folders))
    refuse_lasting_control_flow(path, model)
    return Source(
        path=path,
        model=model,
        digest=hashlib.sha256(data).hexdigest(),
        bytes=len(data) + sum(f.stat().st_size for f in files),
        inputs=inputs,
        outputs=outputs,
        metadata={p.key: p.value for p in model.metadata_props},
        external=files,
        notes=tuple(notes),
        weights=folders[0] if folders else None,
    )


def load_as_it_is(path: Path) -> Source:
    """Read any model, quantized or not, with its external data, without vetting or repairing it.

    Raises:
        ModelError: it cannot be read, or has an input or output of a type that no model of ours has.
    """
    data = _read(path)
    model = _parse(path, data)
    files = load_external_data(path, model, list(tensors_of(model)))
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_value_info(path, value) for value in model.graph.input if value.name not in constants)
    outputs = tuple(_value_info(path, value) for value in model.graph.output)
    size = len(data) + sum(file.stat().st_size for file in files)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return Source(path, model, hashlib.sha256(data).hexdigest(), size, inputs, outputs, metadata, files)


def _new_folder(folders: list[WeightFolder]) -> Path:
    folders.append(WeightFolder())
    return folders[0].path


def _read(path: Path) -> bytes:
    check_input(path)
    try:
        with open(path, "rb") as file:
            # zeros, of which a file is made that was never filled, are the start of no message: not all of them need be read
            empty = file.read(1) == b"\0"
        data = b"\0" if empty else path.read_bytes()
    except OSError as error:
        raise ModelError(f"the input file cannot be read ({error.strerror})", where=str(path), hint="check its permissions") from None
    if not data:
        raise ModelError("the input file is empty", where=str(path), hint="export or download the model again")
    return data


def _serialized(model: onnx.ModelProto) -> bytes:
    refuse_large(GIVEN, model)
    return bytes(model.SerializeToString(deterministic=True))


def _refuse_external_data(model: onnx.ModelProto) -> None:
    """Nobody has said in which folder its files are."""
    for tensor in tensors_of(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            what = f"tensor '{tensor.name}' of the model lies in another file"
            raise ModelError(what, where=str(GIVEN), hint="give the path of the model, or load it with onnx.load, which reads them")


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_from_string(data)
    except (DecodeError, ValueError):
        raise _not_onnx(path, data) from None
    if not model.graph.node or not model.graph.output or not model.opset_import:
        raise ModelError("the file holds no complete ONNX graph", where=str(path), hint="export or download the model again")
    return model


def _not_onnx(path: Path, data: bytes) -> ModelError:
    """What else the file is, by its first bytes or its name, and what to do then."""
    for begin, (what, hint) in _BEGINNINGS.items():
        if data.lstrip()[: len(begin)].lower() == begin:
            return ModelError(f"the file is {what}, not a model in ONNX", where=str(path), hint=hint)
    if path.suffix.lower() in _OTHER_FORMATS:
        return ModelError(
            f"the file is a {path.suffix} file, not a model in ONNX", where=str(path), hint=_OTHER_FORMATS[path.suffix.lower()]
        )
    return ModelError("the file is not ONNX, or is truncated", where=str(path), hint="export or download the model again")


def _value_info(path: Path, value: onnx.ValueInfoProto) -> ValueInfo:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type not in _TYPES:
        kind = type_name(tensor.elem_type) if value.type.HasField("tensor_type") else "not a tensor"
        raise ModelError(
            f"'{value.name}' is {kind}; inputs and outputs must be float32, float16, int64, int32, uint8 or bool",
            where=f"{path}, tensor '{value.name}'",
            hint="export the model in float32",
        )
    shape = tuple(
        d.dim_value if d.HasField("dim_value") else (d.dim_param if d.dim_param not in ("", "?") else None) for d in tensor.shape.dim
    )
    return ValueInfo(value.name, _TYPES[tensor.elem_type], shape)
