"""The files of an emitted model: one, or two where it is too large for protobuf."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from converter.errors import UsageError
from converter.graph import weight_files

__all__ = ["data_path", "model_files"]


def data_path(path: Path) -> Path:
    """Where the weights of a large model lie, beside the model."""
    return path.with_name(f"{path.name}.data")


def model_files(model: onnx.ModelProto, path: Path) -> dict[Path, bytes | Iterable[bytes]]:
    """What is to be written, by path, in this order.

    Args:
        model: with its weights in memory or in files; left as it is, and needed until everything is written.
        path: of the model.

    Raises:
        UsageError: the model needs a second file, and the path is a device or a pipe, beside which there can be none.
    """
    if weight_files.model_bytes(model) <= weight_files.MOST_IN_ONE_FILE:
        return {path: weight_files.in_memory(model).SerializeToString(deterministic=True)}
    if path.exists() and not path.is_file():
        raise UsageError("the model is too large for one file", where=str(path), hint="name a file, beside which another can lie")
    light, arrays = weight_files.apart(model, data_path(path).name)
    return {data_path(path): _numbers(arrays), path: light.SerializeToString(deterministic=True)}


def _numbers(tensors: list[onnx.TensorProto]) -> Iterator[bytes]:
    """One tensor after the other, each from the start of a page on."""
    for tensor in tensors:
        array = weight_files.array_of(tensor)
        yield array.tobytes()
        yield bytes(-array.nbytes % weight_files.ALIGNMENT)
