"""Weights kept in files: what a large model weighs lies in a folder of temporary files, from where it is mapped into memory as it is read.

A protobuf message ends at 2 GB, and every copy of a model would hold its weights once more. So tensors of a large model are written to
files of one folder. Models and their copies name the place; who reads a tensor sees a page of the file, of which there is one for all.

In a model as protobuf such a tensor is one with external data whose location is an absolute path.
"""

from __future__ import annotations

import math
import mmap
import os
import platform
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto, numpy_helper

from converter.errors import UsageError

__all__ = [
    "ALIGNMENT",
    "MOST_IN_MEMORY",
    "MOST_IN_ONE_FILE",
    "WeightFolder",
    "apart",
    "append_aligned",
    "array_of",
    "copied",
    "exceeds_file",
    "folder_of",
    "in_memory",
    "is_heavy",
    "is_in_file",
    "memory_bytes",
    "model_bytes",
    "new_weight_file",
    "offload",
    "offload_constants",
    "place_in_file",
    "read_back",
    "release_pages",
    "with_relative_places",
]

MOST_IN_MEMORY = 1 << 28
"""Bytes of weights above which a model keeps them in files while it is converted: every copy of it would hold them once more."""

MOST_IN_ONE_FILE = 1 << 30
"""Bytes of weights above which a model is written as two files: half of what protobuf holds."""

_SMALL = 1 << 16
"""Bytes up to which a tensor of such a model stays in it: shapes, scales and biases, which are looked at often."""

ALIGNMENT = 4096
"""Of tensors in files, in bytes: the size of a page."""

_PREFIX = "bridgequant-weights"


class WeightFolder:
    """A folder of temporary files, removed when nobody holds this object any more or the process ends.

    Folders that killed processes of this machine left behind are removed, too.

    Raises:
        UsageError: there is no place for temporary files.
    """

    def __init__(self) -> None:
        start = f"{_PREFIX}-{platform.node()[:30]}"
        for left in Path(tempfile.gettempdir()).glob(f"{start}-*-*"):
            process = left.name.split("-")[-2]
            if os.name == "posix" and process.isdecimal() and not Path(f"/proc/{process}").exists() and Path("/proc/self").exists():
                shutil.rmtree(left, ignore_errors=True)
        try:
            self.path = Path(tempfile.mkdtemp(prefix=f"{start}-{os.getpid()}-")).resolve()
        except OSError as error:
            raise _no_room(error) from error
        self._removal = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def is_in_file(tensor: TensorProto) -> bool:
    """True if the numbers lie in a file of a weight folder."""
    return tensor.data_location == TensorProto.EXTERNAL and os.path.isabs(_entry(tensor, "location"))


def folder_of(model: onnx.ModelProto) -> Path | None:
    """The weight folder of a model; None if all its weights are in memory."""
    return next((Path(_entry(t, "location")).parent for t in model.graph.initializer if is_in_file(t)), None)


def array_of(tensor: TensorProto) -> npt.NDArray[Any]:
    """The numbers of a tensor, mapped from a file if they are in one.

    Raises:
        ValueError, TypeError, KeyError: they do not fit its type and shape.
    """
    if not is_in_file(tensor):
        stored: npt.NDArray[Any] = numpy_helper.to_array(tensor)
        return stored
    array: npt.NDArray[Any] = ir.serde.deserialize_tensor(tensor).numpy()
    return array


def is_heavy(tensor: TensorProto) -> bool:
    """True for a tensor that a large model has in a file."""
    return _bytes(tensor) > _SMALL


def memory_bytes(model: onnx.ModelProto) -> int:
    """What the initializers of a model take in memory."""
    return sum(_bytes(t) for t in model.graph.initializer if not is_in_file(t))


def exceeds_file(model: onnx.ModelProto) -> bool:
    """True if the initializers that a model has in memory are too many for a protobuf message."""
    return memory_bytes(model) > MOST_IN_ONE_FILE


def model_bytes(model: onnx.ModelProto) -> int:
    """Size of a model's file, with its weights: protobuf itself cannot tell above 2 GB."""
    heavy = [t for t in model.graph.initializer if is_heavy(t)]
    if sum(_bytes(t) for t in heavy if not is_in_file(t)) <= MOST_IN_ONE_FILE:
        return int(model.ByteSize()) + sum(_bytes(t) for t in heavy if is_in_file(t))
    return sum(_bytes(t) for t in model.graph.initializer) + sum(int(n.ByteSize()) for n in model.graph.node)


def place_in_file(tensor: TensorProto, path: Path, offset: int, length: int) -> None:
    """Let a tensor name the place of its numbers."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", str(path)), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def offload(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The same model with the large tensors among its initializers in a file of a folder; the model given is left as it is.

    Raises:
        UsageError: the file cannot be written.
    """
    result = _without_initializers(model)
    with new_weight_file(folder) as (path, file):
        for tensor in model.graph.initializer:
            if is_in_file(tensor) or not is_heavy(tensor):
                result.graph.initializer.append(tensor)
                continue
            array = np.ascontiguousarray(numpy_helper.to_array(tensor))
            offset = append_aligned(file, [array.reshape(-1).view(np.uint8).data])
            place_in_file(_typed(result, tensor), path, offset, array.nbytes)
    return result


def apart(model: onnx.ModelProto, location: str) -> tuple[onnx.ModelProto, list[TensorProto]]:
    """The same model with its large initializers in one file, and these in the order in which they lie there, each at the start of a page.

    Args:
        location: of the file, relative to the model's.
    """
    result, moved, offset = _without_initializers(model), [], 0
    for tensor in model.graph.initializer:
        if not is_heavy(tensor):
            result.graph.initializer.append(tensor)
            continue
        place_in_file(_typed(result, tensor), Path(location), offset, _bytes(tensor))
        moved.append(tensor)
        offset += _bytes(tensor) + -_bytes(tensor) % ALIGNMENT
    return result, moved


def in_memory(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with all its weights in it; a copy if some are in files."""
    return model if folder_of(model) is None else read_back(copied(model))


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy; weights in files stay there."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def offload_constants(model: ir.Model) -> None:
    """Move large constants that are in memory to a file, if others of the model are in files; in place.

    Raises:
        UsageError: the file cannot be written.
    """
    values = [v for v in model.graph.initializers.values() if v.const_value is not None]
    folder = next((Path(v.const_value.path).parent for v in values if isinstance(v.const_value, ir.ExternalTensor)), None)
    if folder is None:
        return
    waiting = [v for v in values if not isinstance(v.const_value, ir.ExternalTensor) and v.const_value.nbytes > _SMALL]  # type: ignore[union-attr]
    if not waiting:
        return
    with new_weight_file(folder) as (path, file):
        for value in waiting:
            array = np.ascontiguousarray(value.const_value.numpy())  # type: ignore[union-attr]
            offset = append_aligned(file, [array.reshape(-1).view(np.uint8).data])
            kind = ir.DataType.from_numpy(array.dtype)
            value.const_value = ir.ExternalTensor(str(path), offset, array.nbytes, kind, shape=ir.Shape(array.shape), name=str(value.name))


def with_relative_places(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which weights lie beside the model, as the runtime wants it: in the folder of :func:`folder_of`."""
    result = copied(model)
    for tensor in result.graph.initializer:
        if is_in_file(tensor):
            place = next(e for e in tensor.external_data if e.key == "location")
            place.value = Path(place.value).name
    return result


def release_pages(model: ir.Model) -> None:
    """Let go of what has been read of a model's files; whoever reads it again finds it there.

    What is mapped twice, here and by the runtime, counts twice as memory of a process.
    """
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.raw is not None and hasattr(tensor.raw, "madvise"):
            tensor.raw.madvise(mmap.MADV_DONTNEED)


def read_back(model: onnx.ModelProto) -> onnx.ModelProto:
    """Read what lies in files into a model, in place, and return it."""
    for tensor in model.graph.initializer:
        if is_in_file(tensor):
            numbers = array_of(tensor).tobytes()
            tensor.ClearField("data_location")
            del tensor.external_data[:]
            tensor.raw_data = numbers
    return model


def append_aligned(file: IO[bytes], parts: Iterable[bytes | memoryview]) -> int:
    """Append bytes at the start of a page; returns where that is."""
    offset = file.tell()
    file.write(bytes(-offset % ALIGNMENT))
    start = file.tell()
    for part in parts:
        file.write(part)
    return start


@contextmanager
def new_weight_file(folder: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Open a new file of a weight folder.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(suffix=".weights", dir=folder)
    except OSError as error:
        raise _no_room(error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield Path(name), file
    except OSError as error:
        raise _no_room(error) from error


def _no_room(error: OSError) -> UsageError:
    what = f"the weights cannot be written to temporary files: {error.strerror or error}"
    hint = "set TMPDIR to a folder with as much space as the model takes"
    return UsageError(what, where=os.environ.get("TMPDIR", tempfile.gettempdir()), hint=hint)


def _without_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of all but the initializers: one of the whole would hold them until it is gone, even if they are deleted."""
    result = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy_field(result, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy_field(result.graph, field.name, value)
    return result


def _typed(model: onnx.ModelProto, like: TensorProto) -> TensorProto:
    """A new initializer of a name, type and shape."""
    return model.graph.initializer.add(name=like.name, data_type=like.data_type, dims=like.dims)


def _copy_field(message: Any, name: str, value: Any) -> None:
    field = getattr(message, name)
    if hasattr(field, "extend"):
        field.extend(value)
    elif hasattr(field, "CopyFrom"):
        field.CopyFrom(value)
    else:
        setattr(message, name, value)


def _bytes(tensor: TensorProto) -> int:
    """Of its numbers, from type and shape: to look at the numbers would copy them."""
    if tensor.data_type not in TensorProto.DataType.values() or tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return 0
    elements: int = math.prod(tensor.dims)
    return elements * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _entry(tensor: TensorProto, key: str) -> str:
    return next((str(e.value) for e in tensor.external_data if e.key == key), "")
