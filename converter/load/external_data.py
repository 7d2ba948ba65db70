"""External data: weights that a model keeps in files beside it. Only files inside the model's folder are ever opened."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import TensorProto

from converter.errors import ModelError
from converter.graph import weight_files

__all__ = ["load_external_data"]

_BLOCK = 1 << 22

_PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


def load_external_data(
    path: Path, model: onnx.ModelProto, tensors: Iterable[TensorProto], keep_in: Callable[[], Path] | None = None
) -> tuple[Path, ...]:
    """Read the external data of a model into it.

    Args:
        model: parsed from it.
        tensors: all tensors of the model, in initializers and in attributes.
        keep_in: makes a folder to which the initializers of a large model are copied, see :mod:`converter.graph.weight_files`;
            without it such a model is refused.

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
    if sum(file.stat().st_size for file in files) > weight_files.MOST_IN_MEMORY:
        if keep_in is not None:
            _copy(path, folder, model, keep_in())
            external = [t for t in external if not weight_files.is_in_file(t)]
        elif sum(file.stat().st_size for file in files) >= onnx.checker.MAXIMUM_PROTOBUF:
            raise ModelError("models over 2 GB can only be converted", where=str(path), hint="use a smaller model")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # unknown keys in a tensor's external data are none of our business
            for tensor in external:
                onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
                tensor.data_location = TensorProto.DEFAULT
                del tensor.external_data[:]
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"external data cannot be read: {first}", where=str(path), hint="copy or save the model again") from None
    for tensor in external:
        _check_length(path, tensor, len(tensor.raw_data))
    return tuple(sorted(files))


def _check_length(path: Path, tensor: TensorProto, present: int) -> None:
    expected = _expected_bytes(tensor)
    if present != expected:
        kind = "truncated" if present < expected else "too long"
        raise ModelError(
            f"external data of tensor '{tensor.name}' is {kind}: {present} bytes instead of {expected}",
            where=str(path),
            hint="copy or save the model again, together with its data file",
        )


def _copy(path: Path, folder: Path, model: onnx.ModelProto, into: Path) -> None:
    """Copy the large external initializers of the main graph to a file of a weight folder."""
    with weight_files.new_weight_file(into) as (target, file):
        for tensor in model.graph.initializer:
            if tensor.data_location != TensorProto.EXTERNAL or not weight_files.is_heavy(tensor):
                continue
            source = _data_file(path, folder, tensor)
            start, length = _range(path, tensor, source.stat().st_size)
            _check_length(path, tensor, length)
            offset = weight_files.append_aligned(file, _blocks(path, source, start, length))
            weight_files.place_in_file(tensor, target, offset, length)


def _range(path: Path, tensor: TensorProto, size: int) -> tuple[int, int]:
    """Where in a file of so many bytes the numbers of a tensor lie: the first byte, and how many there are."""
    entries = {e.key: e.value for e in tensor.external_data}
    try:
        start = int(entries.get("offset") or 0)
        length = int(entries.get("length") or size - start)
    except ValueError:
        start, length = -1, -1
    if start < 0 or length < 0 or start + length > size:
        what = f"external data cannot be read: tensor '{tensor.name}' has no valid place in its file"
        raise ModelError(what, where=str(path), hint="copy or save the model again")
    return start, length


def _blocks(path: Path, source: Path, start: int, length: int) -> Iterator[bytes]:
    try:
        with open(source, "rb") as file:
            file.seek(start)
            while length > 0:
                block = file.read(min(length, _BLOCK))
                if not block:
                    raise OSError("it became shorter while it was read")
                length -= len(block)
                yield block
    except OSError as error:
        first = str(error.strerror or error)
        raise ModelError(f"external data cannot be read: {first}", where=str(path), hint="copy or save the model again") from None


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
