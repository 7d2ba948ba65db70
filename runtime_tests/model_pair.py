"""What is validated: a float model, what was converted from it, and the samples that both run on."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from converter.calibration.input_shapes import calibration_shapes
from converter.calibration.preprocess import Preprocess, mean_and_std, parse_preprocess, stated_preprocess
from converter.calibration.samples import load_samples
from converter.diagnosis.model_file import is_quantized
from converter.errors import ModelError, UsageError
from converter.graph.protos import tensors_of
from converter.graph.weight_files import in_memory
from converter.load.external_data import load_external_data
from converter.load.metadata import BITS, IO, TARGET
from converter.load.model import Source, load
from converter.load.pixel_inputs import with_pixel_inputs
from converter.runtime.session import Feed
from converter.targets import DEFAULT_TARGET, TARGETS, find_target
from models.evaluate import exact_setting
from runtime_tests.emulation.inputs import read_model

__all__ = ["ModelPair", "open_model_pair", "session_settings", "stacked"]

_BITS = re.compile(r"W([4-8])A([4-8])")


@dataclass(frozen=True, eq=False)
class ModelPair:
    """A pair of models that is ready to be examined.

    Attributes:
        floats: the float model; with pixels for inputs, which it normalises, where the int8 model takes those.
        path: the int8 file.
        model: its content.
        target: the machine class it was made for, as far as the file says.
        settings: session settings under which this machine runs that class's kernels.
        bits: of weights and of what enters layers; None if the file does not say.
        preprocess: how pictures become inputs; None if neither the caller nor the models say.
        feeds: samples for both models, at least one.
        samples: where they come from, in one line.
        bytes: of the int8 file and its external data.
    """

    floats: Source
    path: Path
    model: onnx.ModelProto
    target: str | None
    settings: Mapping[str, str]
    bits: tuple[int, int] | None
    preprocess: Preprocess | None
    feeds: tuple[Feed, ...]
    samples: str
    bytes: int

    @property
    def takes_pixels(self) -> bool:
        """Whether inputs are pixels, which the float model does not take as it lies in its file."""
        return any(entry.key == IO and entry.value != "float" for entry in self.model.metadata_props)

    def float_file(self, folder: Path) -> Path:
        """A file of the float model that takes the samples: its own, or one in the folder that normalises pixels."""
        if not self.takes_pixels:
            return self.floats.path
        path = folder / "normalising.onnx"
        path.write_bytes(in_memory(self.floats.model).SerializeToString(deterministic=True))
        return path

    @property
    def emulated_target(self) -> str:
        """Whose kernels this machine imitates when it is compared with an ARM64 core."""
        return self.target if self.target is not None and self.target in TARGETS else DEFAULT_TARGET


def open_model_pair(
    float_path: Path,
    path: Path,
    *,
    data: Path | None = None,
    count: int = 8,
    preprocess: str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    target: str | None = None,
    seed: int = 0,
) -> ModelPair:
    """Read both models and the samples.

    Args:
        float_path: the float model.
        path: what was converted from it, by this converter or another.
        data: images or arrays to run on; by default built-in synthetic samples.
        preprocess: of pictures, instead of the models' own.
        input_shapes: of inputs with open sizes.
        target: machine class of the int8 model, instead of what the file says.
        seed: of the choice of samples, and of those that are made up.

    Raises:
        ModelError: a model cannot be read, or both do not have the same inputs and outputs.
        UsageError, CalibrationError: the samples cannot be had.
    """
    _check_order(float_path, path)
    source, model = load(float_path), read_model(path)
    _check_pair(source, model, path)
    files = load_external_data(path, model, list(tensors_of(model)))
    metadata = {**source.metadata, **{entry.key: entry.value for entry in model.metadata_props}}
    prepared = parse_preprocess(preprocess) if preprocess else stated_preprocess(metadata)
    source = _taking_pixels(source, metadata, prepared, path)
    shapes, _ = calibration_shapes(source, input_shapes or {}, data, 1)
    samples = load_samples(data, shapes, count=count, preprocess=prepared, seed=seed)
    bits = _BITS.fullmatch(metadata.get(BITS, ""))
    made_for = find_target(target).name if target else metadata.get(TARGET)
    return ModelPair(
        source,
        path,
        model,
        made_for,
        session_settings(model, target or made_for, named=target is not None),
        (int(bits[1]), int(bits[2])) if bits else None,
        prepared,
        tuple(samples.calibration[:count]),
        samples.description.partition(": ")[0],
        sum(file.stat().st_size for file in (path, *files)),
    )


def _taking_pixels(source: Source, metadata: Mapping[str, str], preprocess: Preprocess | None, path: Path) -> Source:
    """The float model, which takes what the int8 model does."""
    if metadata.get(IO, "float") == "float":
        return source
    if preprocess is None:
        what = "the model takes pixels, and neither of the two says how the float model's inputs are made of them"
        raise UsageError(what, where=str(path), hint="say it: --preprocess unit, symmetric, imagenet or 'mean=..;std=..'")
    return with_pixel_inputs(source, lambda channels: mean_and_std(preprocess, channels))


def _check_order(float_path: Path, path: Path) -> None:
    if is_quantized(read_model(float_path)) and not is_quantized(read_model(path)):
        what = "the first model is quantized and the second is not"
        raise UsageError(what, where=f"{float_path}, {path}", hint="give the float model first, then the int8 model")


def _check_pair(source: Source, model: onnx.ModelProto, path: Path) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    outputs = [value.name for value in model.graph.output]
    for kind, wanted, found in (("inputs", source.inputs, inputs), ("outputs", source.outputs, outputs)):
        names = [value.name for value in wanted]
        if names != found:
            where = f"{source.path}: {', '.join(names)}; {path}: {', '.join(found)}"
            raise ModelError(f"the two models have different {kind}", where=where, hint="give a float model and its own conversion")


def session_settings(model: onnx.ModelProto, target: str | None, *, named: bool, machine: str | None = None) -> Mapping[str, str]:
    """Settings of the target; for a file of unknown origin, what keeps signed kernels signed.

    Args:
        target: name or file of a machine class; None if nobody says.
        named: by the caller, rather than by the model's file.
        machine: where it will run, as ``platform.machine()`` says there; by default here.
    """
    machine = machine or platform.machine()
    if target is not None and (named or target in TARGETS):
        return find_target(target).session_settings.get(machine, {})
    signed = exact_setting(model)
    return {signed: "1"} if signed == "session.qdqisint8allowed" and machine in ("x86_64", "AMD64") else {}


def stacked(feeds: tuple[Feed, ...]) -> dict[str, npt.NDArray[Any]]:
    """Samples along a new axis 0, by input.

    Raises:
        UsageError: there are none.
    """
    if not feeds:
        raise UsageError("there are no samples", where="--samples", hint="ask for 1 or more")
    return {name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]}
