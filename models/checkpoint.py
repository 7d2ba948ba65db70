"""Weights from a file into a network: ``.safetensors``, ``.pth``, ``.pt`` or ``.pth.tar``."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from converter.errors import ModelError, UsageError
from models.mobile_former_weights import from_released, is_released

__all__ = ["CheckpointError", "Weights", "load_weights", "read_weights"]

_TORCH_SUFFIXES = (".pth", ".pt", ".tar")
_NESTINGS = ("state_dict", "model")
_SHOWN = 3


class CheckpointError(ModelError):
    """The file is not a checkpoint, or not one of this network."""


@dataclass(frozen=True)
class Weights:
    """What a checkpoint holds.

    Attributes:
        tensors: by parameter or buffer name; floating ones are float32.
        metadata: the text entries of a safetensors header, empty for other formats.
    """

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


def read_weights(path: Path) -> Weights:
    """Read a checkpoint, without running any code that it may contain.

    A ``state_dict`` or ``model`` entry around the weights and a ``module.`` in front of every name are taken off,
    half-precision and double tensors become float32, and the names of the released Mobile-Former weights become ours.

    Raises:
        UsageError: no such file, or a suffix that stands for no known format.
        CheckpointError: the file is damaged, or holds something other than tensors.
    """
    if not path.is_file():
        raise UsageError("there is no such checkpoint", where=str(path), hint="check the spelling")
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
    elif path.suffix in _TORCH_SUFFIXES:
        tensors, metadata = _read_torch(path), {}
    else:
        hint = "give a .safetensors, .pth, .pt or .pth.tar file"
        raise UsageError(f"checkpoints of type '{path.suffix}' are not known", where=str(path), hint=hint)
    if tensors and all(name.startswith("module.") for name in tensors):  # left behind by DataParallel
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if is_released(tensors):
        tensors = from_released(tensors)
    return Weights({name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}, metadata)


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise CheckpointError(f"not a readable safetensors file: {error}", where=str(path), hint="download or copy it again") from error


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        hint = "load it where it was made and save its state dict alone"
        raise CheckpointError("holds more than tensors, which could run code when loaded", where=str(path), hint=hint) from error
    except (RuntimeError, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"not a readable PyTorch file: {reason}", where=str(path), hint="download or copy it again") from error
    for nesting in _NESTINGS:
        if isinstance(content, Mapping) and isinstance(content.get(nesting), Mapping):
            content = content[nesting]
    strangers = [key for key, value in content.items() if not torch.is_tensor(value)] if isinstance(content, Mapping) else ["all of it"]
    if strangers:
        hint = f"its weights are looked for at the top level and under {' and '.join(_NESTINGS)}"
        raise CheckpointError(f"not a state dict: no tensor at {_some(strangers)}", where=str(path), hint=hint)
    return dict(content)


def load_weights(model: nn.Module, weights: Weights, source: Path) -> None:
    """Copy weights into a network that has exactly these tensors; BatchNorm's step counters may be absent.

    Args:
        model: changed in place.
        weights: from :func:`read_weights`.
        source: where they come from, for the message.

    Raises:
        CheckpointError: names or shapes differ; says how many and which, a few of each. The network is unchanged.
    """
    wanted = model.state_dict()
    # Nothing reads this counter once the statistics are known, and some tools leave it out.
    missing = [name for name in wanted if name not in weights.tensors and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in weights.tensors if name not in wanted]
    misshapen = [
        f"{name} is {list(tensor.shape)} in the file, {list(wanted[name].shape)} in the network"
        for name, tensor in weights.tensors.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    parts = [("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)]
    differences = [f"{len(names)} {kind} ({_some(names)})" for kind, names in parts if names]
    if differences:
        what = f"the weights do not fit the network: {'; '.join(differences)}"
        raise CheckpointError(what, where=str(source), hint="check the network's name, --classes and --size")
    model.load_state_dict(weights.tensors, strict=False)


def _some(names: Sequence[str]) -> str:
    """List the first few names, and say if there are more."""
    return ", ".join(map(str, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
