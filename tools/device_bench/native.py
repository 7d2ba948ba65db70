"""The runner for devices without Python: ``native.c``, with ONNX Runtime's own library, both given by path.

It takes no job files, but words; samples and outputs are files of tensors as it reads and writes them.
"""

from __future__ import annotations

import json
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from converter.errors import ConverterError, UsageError
from runtime_tests.emulation.inputs import Samples
from tools.device_bench.transport import Transport

__all__ = ["Native", "add_native", "check_native", "pack_tensors", "run_native", "setting_words", "unpack_tensors"]

_LIBRARY, _RUNNER = "libonnxruntime.so", "native"


@dataclass(frozen=True)
class Native:
    """Files for the device, of its architecture.

    Attributes:
        library: ONNX Runtime's, as in ``jni/arm64-v8a/`` of its Android package.
        runner: what ``native.c`` was built to.
    """

    library: Path
    runner: Path


def check_native(native: Native) -> None:
    """Refuse files that are not there.

    Raises:
        UsageError: names the file.
    """
    for flag, path in (("--library", native.library), ("--runner", native.runner)):
        if not path.is_file():
            raise UsageError("there is no such file", where=f"{flag} {path}", hint="docs/devices.md says where it comes from")


def add_native(archive: tarfile.TarFile, native: Native) -> None:
    """Add both files, the runner as a program."""
    archive.add(native.library.resolve(), _LIBRARY)
    entry = archive.gettarinfo(str(native.runner.resolve()), _RUNNER)
    entry.mode = 0o755
    with native.runner.open("rb") as content:
        archive.addfile(entry, content)


def run_native(device: Transport, folder: str, *words: str, mask: str | None = None) -> dict[str, Any]:
    """Run it and read the line of JSON that it writes.

    Raises:
        ConverterError: it does not run on the device.
    """
    pinned = [] if mask is None else ["taskset", mask]
    told = device.run([*pinned, f"{folder}/{_RUNNER}", f"{folder}/{_LIBRARY}", *words])
    try:
        found: dict[str, Any] = json.loads(told)
    except ValueError:
        hint = "see whether it was built for the device, from this version of native.c"
        raise ConverterError("the runner does not answer as it should", where=f"{device.name}: {told[-100:]!r}", hint=hint) from None
    return found


def pack_tensors(tensors: Samples) -> bytes:
    """Tensors as ``native.c`` reads them."""
    parts = [_numbers(len(tensors))]
    for name, tensor in tensors.items():
        content = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).tobytes()
        kind = int(helper.np_dtype_to_tensor_dtype(tensor.dtype))
        encoded = name.encode()
        parts += [_numbers(len(encoded)), encoded, _numbers(kind, tensor.ndim, *tensor.shape, len(content)), content]
    return b"".join(parts)


def unpack_tensors(content: bytes) -> Samples:
    """Tensors as ``native.c`` writes them.

    Raises:
        ConverterError: the file ends early.
    """
    at = 0

    def taken(size: int) -> bytes:
        nonlocal at
        at += size
        if at > len(content):
            raise ConverterError("outputs did not arrive whole", hint="run it again; see whether the device has room")
        return content[at - size : at]

    def numbers(count: int) -> Sequence[int]:
        return struct.unpack(f"<{count}q", taken(8 * count))

    found: Samples = {}
    for _ in range(numbers(1)[0]):
        name = taken(numbers(1)[0]).decode()
        kind, rank = numbers(2)
        shape = numbers(rank)
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
        found[name] = np.frombuffer(taken(numbers(1)[0]), dtype).reshape(shape)
    return found


def _numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def setting_words(settings: Mapping[str, str]) -> list[str]:
    """Session settings as words."""
    return [f"{key}={value}" for key, value in settings.items()]
