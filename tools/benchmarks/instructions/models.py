"""The models that are counted: a float network, and what our converter and ONNX Runtime's own tool make of it.

Each is made in a process of its own, and taken from an earlier run where nothing that it depends on has changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import ModelError, UsageError
from converter.load.files import write_files
from converter.load.model import load
from converter.options import Options
from tools.benchmarks.compare.sources import CHECKPOINTS
from tools.calibration import calibration_feeds
from tools.processes import run_limited

__all__ = ["NETWORKS", "Ours", "Reference", "Workshop", "check_network", "float_model", "our_model", "static_model"]

_ROOT = Path(__file__).parents[3]
_STATIC = ("tools/benchmarks/compare/peers.py", "tools/benchmarks/real/other_tools.py")
_LIBRARIES = ("numpy", "onnx", "onnxruntime", "torch")
"""Whose versions what is made depends on."""


@dataclass(frozen=True)
class Reference:
    """How a reference network is exported.

    Attributes:
        size: height and width of its images, in pixels.
        trained: with the weights of the checkpoint, which must fit the size; else with random ones, from seed 0.
    """

    size: int
    trained: bool


NETWORKS: Mapping[str, Reference] = {
    "mobilevit_xxs": Reference(256, True),
    "mobilevitv2_050": Reference(256, True),
    # position biases fit one size only, and the checkpoints are of 64 pixels
    "efficientformerv2_s0": Reference(224, False),
    "efficientformer_l1": Reference(224, False),
}
"""By name; any other float model is counted by the path of its file."""


@dataclass(frozen=True)
class Workshop:
    """Where and from what models are made.

    Attributes:
        folder: for models.
        calib: images that calibrate, as of a conversion; None for the built-in ones.
        seconds: that making a model may take.
        megabytes: that it may hold.
    """

    folder: Path
    calib: Path | None
    seconds: float = 7200.0
    megabytes: float = 12000.0


@dataclass(frozen=True)
class Ours:
    """What a conversion made.

    Attributes:
        path: of the int8 model.
        predicted: instructions of one inference, by the target's prices.
        predicted_float: the same of the float model.
    """

    path: Path
    predicted: float
    predicted_float: float


def check_network(network: str) -> str:
    """Return it.

    Raises:
        UsageError: it is neither one of :data:`NETWORKS` nor a file.
    """
    if network not in NETWORKS and not Path(network).is_file():
        hint = f"choose from {', '.join(NETWORKS)}, or give an .onnx file"
        raise UsageError(f"there is no network '{network}'", where="--networks", hint=hint)
    return network


def float_model(shop: Workshop, network: str) -> Path:
    """The float model.

    Args:
        shop: where and from what.
        network: one of :data:`NETWORKS`, or the path of an ONNX file.

    Raises:
        ModelError: it cannot be exported.
    """
    if network not in NETWORKS:
        return Path(network)
    reference, path = NETWORKS[network], shop.folder / f"{network}.onnx"
    command = ["-m", "models.export", network, str(path), "--size", str(reference.size), "--seed", "0"]
    weights = [_ROOT / CHECKPOINTS / f"{network}.safetensors"] if reference.trained else []
    command += [word for file in weights for word in ("--checkpoint", str(file))]
    _make(shop, path, command, _key(["float", network, str(reference)], ["models"], weights))
    return path


def our_model(shop: Workshop, network: str, target: str, method: str | None = None) -> Ours:
    """The model that ``convert.py`` makes for a target, all else at its defaults.

    Args:
        shop: where and from what.
        network: one of :data:`NETWORKS`, or the path of an ONNX file.
        target: its name.
        method: None for the default one.

    Raises:
        ModelError: it makes none.
    """
    source = float_model(shop, network)
    path = shop.folder / f"{source.stem}_{'_'.join([target, *([method] if method else [])])}.onnx"
    report, calib = path.with_suffix(".json"), [] if shop.calib is None else [shop.calib]
    command = [str(_ROOT / "convert.py"), str(source), str(path), "--target", target, "--json", str(report), "--threads", "1"]
    command += [word for data in calib for word in ("--calib", str(data))]
    command += ["--method", method] if method else []
    _make(shop, path, command, _key(["ours", target, *([method] if method else [])], ["converter"], [source, *calib]))
    record = json.loads(report.read_text())
    return Ours(path, record["predicted"], record["predicted_float"])


def static_model(shop: Workshop, network: str, tool: str = "ort-s8s8") -> Path:
    """What another tool makes of it on the same samples.

    Args:
        shop: where and from what.
        network: one of :data:`NETWORKS`, or the path of an ONNX file.
        tool: of :data:`tools.benchmarks.real.other_tools.PEERS`; by default ONNX Runtime's ``quantize_static``: QDQ, int8 activations
            and weights, per channel.

    Raises:
        ModelError: it makes none.
        CalibrationError: the samples cannot be used.
    """
    source = float_model(shop, network)
    path = shop.folder / f"{source.stem}_{'quantize_static' if tool == 'ort-s8s8' else tool}.onnx"
    key = _key(["quantize_static" if tool == "ort-s8s8" else tool], _STATIC, [source, *([] if shop.calib is None else [shop.calib])])
    if not _made(path, key):
        calib = path.with_suffix(".npz")
        write_files({calib: _samples(source, shop.calib)})
        try:
            command = ["-m", "tools.benchmarks.real.other_tools", tool, str(source), str(path), str(calib)]
            _make(shop, path, [*command, "--samples", str(Options.samples)], key)
        finally:
            calib.unlink(missing_ok=True)
    return path


def _samples(source: Path, calib: Path | None) -> bytes:
    """An .npz of what a conversion by default calibrates on."""
    feeds = calibration_feeds(load(source), calib, count=Options.samples, seed=Options.seed)
    stream = io.BytesIO()
    arrays: dict[str, Any] = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    np.savez(stream, **arrays)
    return stream.getvalue()


def _make(shop: Workshop, path: Path, command: Sequence[str], key: str) -> None:
    """Run a command that writes the file, unless the file was made with the same key."""
    if _made(path, key):
        return
    stamp = path.with_suffix(".key")
    stamp.unlink(missing_ok=True)
    where = ":".join([str(_ROOT), *(p for p in sys.path if p)])
    limits = {"seconds": shop.seconds, "megabytes": shop.megabytes}
    ended = run_limited([sys.executable, *command], **limits, environment={"PYTHONPATH": where})
    if ended.code != 0:
        raise ModelError(f"it cannot be made: {ended.complaint}", where=path.name, hint="run the command by itself")
    write_files({stamp: key.encode()})


def _made(path: Path, key: str) -> bool:
    stamp = path.with_suffix(".key")
    return path.exists() and stamp.exists() and stamp.read_text() == key


def _key(words: Iterable[str], sources: Iterable[str], files: Iterable[Path]) -> str:
    """A digest of all that a model depends on: sources that make it, files it is made of, and libraries."""
    digest = hashlib.sha256("|".join([*words, *map(version, _LIBRARIES)]).encode())
    for source in sources:
        digest.update(_digest(source).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


@cache
def _digest(place: str) -> str:
    """A digest of a file, or of the sources in a folder."""
    path = _ROOT / place
    found = [path] if path.is_file() else [f for f in path.rglob("*") if f.suffix in (".py", ".toml") and not f.name.endswith("_test.py")]
    digest = hashlib.sha256()
    for file in sorted(found):
        digest.update(file.read_bytes())
    return digest.hexdigest()
