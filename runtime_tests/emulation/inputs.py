"""What a model is run on: seeded noise, or arrays from a file. The same for every core."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from converter.errors import ModelError, UsageError
from converter.load.files import check_input
from converter.runtime.session import open_session

__all__ = ["Input", "Samples", "file_inputs", "model_inputs", "read_model", "read_samples", "seeded_samples"]

Samples = dict[str, npt.NDArray[Any]]
"""Inputs by name, samples along a new axis 0."""

ORT_SUFFIX = ".ort"
"""Of files in ONNX Runtime's mobile format, which only the runtime reads."""

_TYPES = {"float": "float32", "double": "float64"}
"""NumPy's names of types for which the runtime has others."""

_HINT_SIZES = "give arrays of the wanted size with --inputs"


@dataclass(frozen=True)
class Input:
    """One model input; a dimension that the model leaves open is None."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


def read_model(path: Path) -> onnx.ModelProto:
    """Read a model, without the external data it may have.

    Raises:
        ModelError: it cannot be read, or is not ONNX.
    """
    check_input(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise ModelError("the file is not an ONNX model", where=str(path), hint="check the path") from error
    if not model.graph.output:
        raise ModelError("the file is not an ONNX model, or it has no outputs", where=str(path), hint="check the path")
    return model


def file_inputs(path: Path) -> list[Input]:
    """The inputs that have to be fed to the model in a file, in ONNX or in the mobile format.

    Raises:
        ModelError: it cannot be read, or an input is not a tensor.
    """
    if path.suffix != ORT_SUFFIX:
        return model_inputs(read_model(path))
    check_input(path)
    return [_stated(argument) for argument in open_session(path, threads=1).get_inputs()]


def _stated(argument: Any) -> Input:
    """An input as the runtime tells it."""
    kind = argument.type.removeprefix("tensor(").removesuffix(")")
    if kind == argument.type:
        raise ModelError("an input is not a tensor", where=f"input '{argument.name}'", hint="only tensors can be fed here")
    sizes = tuple(size if isinstance(size, int) else None for size in argument.shape)
    return Input(argument.name, np.dtype(_TYPES.get(kind, kind)), sizes)


def model_inputs(model: onnx.ModelProto) -> list[Input]:
    """The inputs that have to be fed."""
    constants = {initializer.name for initializer in model.graph.initializer}
    return [_input(value) for value in model.graph.input if value.name not in constants]


def _input(value: onnx.ValueInfoProto) -> Input:
    tensor = value.type.tensor_type
    if not tensor.elem_type:
        raise ModelError("an input is not a tensor", where=f"input '{value.name}'", hint="only tensors can be fed here")
    sizes = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return Input(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), sizes)


def seeded_samples(inputs: Sequence[Input], count: int, seed: int) -> Samples:
    """Standard normal noise for floats, zeros and ones for integers and booleans; an open batch is 1.

    Raises:
        UsageError: another dimension is open.
    """
    generator = np.random.default_rng(seed)
    samples: Samples = {}
    for value in inputs:
        shape = [1 if size is None and axis == 0 else size for axis, size in enumerate(value.shape)]
        if None in shape:
            raise UsageError("an input has an open size", where=f"input '{value.name}' {list(value.shape)}", hint=_HINT_SIZES)
        sizes = (count, *(size for size in shape if size is not None))
        is_float = np.issubdtype(value.dtype, np.floating)
        noise = generator.standard_normal(sizes) if is_float else generator.integers(0, 2, sizes)
        samples[value.name] = noise.astype(value.dtype)
    return samples


def read_samples(path: Path, inputs: Sequence[Input]) -> Samples:
    """Read an .npz with one array per input: of the input's shape, or with an axis in front for several samples.

    Raises:
        UsageError: it cannot be read, or does not fit.
    """
    where = f"--inputs {path}"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: Mapping[str, npt.NDArray[Any]] = {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError("the inputs cannot be read", where=where, hint="give an .npz with one array per input") from error
    samples = {value.name: _fitted(value, arrays.get(value.name), where) for value in inputs}
    counts = {len(array) for array in samples.values()}
    if len(counts) > 1 or 0 in counts:
        raise UsageError("the inputs have different numbers of samples, or none", where=where, hint="give as many for each input")
    return samples


def _fitted(value: Input, array: npt.NDArray[Any] | None, where: str) -> npt.NDArray[Any]:
    wanted = f"{value.dtype}{['?' if size is None else size for size in value.shape]}"
    if array is None:
        raise UsageError(f"there is no array for input '{value.name}'", where=where, hint=f"add one: {wanted}")
    if array.ndim == len(value.shape):
        array = array[None]
    fits = array.ndim == len(value.shape) + 1 and all(w in (None, got) for w, got in zip(value.shape, array.shape[1:], strict=True))
    if not fits or array.dtype != value.dtype:
        got = f"{array.dtype}{list(array.shape)}"
        raise UsageError(f"the array for input '{value.name}' is {got}", where=where, hint=f"it should be {wanted}, or several of those")
    return array
