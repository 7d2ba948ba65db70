"""External data: weights that a model keeps in files beside it. Only files inside the model's folder are ever opened."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import TensorProto

from converter.errors import ModelError

__all__ = ["load_external_data"]

_PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


def load_external_data(path: Path, model: onnx.ModelProto, tensors: Iterable[TensorProto]) -> tuple[Path, ...]:
    """Read the external data of a model into it.

    Args:
        model: parsed from it.
        tensors: all tensors of the model, in initializers and in attributes.

    Returns:
        the files that were read, sorted.

    Raises:
        ModelError: a file is missing, lies outside the model's folder, is too short, or too large for a model.
    """
    folder = path.resolve().parent
    external = [t for t in tensors if t.data_location == TensorProto.EXTERNAL]
    files = {_data_file(path, folder, tensor) for tensor in external}
    if not files:
        return ()
    if sum(file.stat().st_size for file in files) >= onnx.checker.MAXIMUM_PROTOBUF:
        raise ModelError("models over 2 GB are not supported", where=str(path), hint="convert a smaller model")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # unknown keys in a tensor's external data are none of our business
            onnx.load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"external data cannot be read: {first}", where=str(path), hint="copy or save the model again") from None
    for tensor in external:
        expected = _expected_bytes(tensor)
        if len(tensor.raw_data) != expected:
            kind = "truncated" if len(tensor.raw_data) < expected else "too long"
            raise ModelError(
                f"external data of tensor '{tensor.name}' is {kind}: {len(tensor.raw_data)} bytes instead of {expected}",
                where=str(path),
                hint="copy or save the model again, together with its data file",
            )
    return tuple(sorted(files))


def _data_file(path: Path, folder: Path, tensor: TensorProto) -> Path:
    location = next((e.value for e in tensor.external_data if e.key == "location"), "")
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute()
    try:
        target = (folder / location).resolve()
        inside = bool(location) and not absolute and target.is_relative_to(folder)
        present = inside and target.is_file()
    except (OSError, RuntimeError, ValueError):  # a name that no file can have, or a loop of symbolic links
        inside, present = True, False
    if not inside:
        raise ModelError(
            f"external data of tensor '{tensor.name}' lies outside the model's folder ('{location}')",
            where=str(path),
            hint="save the model with its data beside it",
        )
    if not present:
        raise ModelError(
            f"external data file '{location}' is missing (tensor '{tensor.name}')",
            where=str(path),
            hint=f"put '{location}' into the same folder as the model",
        )
    return target


def _expected_bytes(tensor: TensorProto) -> int:
    if tensor.data_type not in TensorProto.DataType.values():
        raise ModelError(f"tensor '{tensor.name}' is of an unknown type", where=f"type {tensor.data_type}", hint="save the model again")
    name = TensorProto.DataType.Name(tensor.data_type)
    bits = _PACKED_BITS.get(name) or int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize) * 8
    elements: int = math.prod(tensor.dims)
    return -(-elements * bits // 8)
