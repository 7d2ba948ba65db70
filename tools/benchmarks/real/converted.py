"""The int8 model of a row: made in a process of its own, or taken from an earlier run where nothing that it depends on has changed."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from converter.load.files import write_files
from converter.load.model import load
from converter.options import Options
from converter.partition.cost_model import predict
from converter.pipeline import calibrate
from converter.targets import find_target
from converter.verify.coverage_by_profile import coverage_of
from tools.benchmarks.real.file_costs import file_cost
from tools.benchmarks.real.other_tools import ELSEWHERE, PEERS
from tools.benchmarks.real.rows import Row
from tools.benchmarks.real.session_settings import settings_for
from tools.processes import Ended, run_limited

__all__ = ["Workshop", "converted", "key_of", "stem_of"]

_ROOT = Path(__file__).parents[3]
_FEW = 2
"""Images that show shapes."""

_MAKES_OURS = (_ROOT / "converter",)
_MAKES_OTHERS = (_ROOT / "tools/benchmarks/compare/peers.py", _ROOT / "tools/benchmarks/real/other_tools.py")


@dataclass(frozen=True)
class Workshop:
    """Where and how models are made.

    Attributes:
        folder: for models; what is there is used again.
        samples: how many calibrate.
        peers_python: interpreter that has the tools which come as packages of their own.
        seconds: that making a model may take.
        megabytes: that it may hold.
    """

    folder: Path
    samples: int
    peers_python: str = sys.executable
    seconds: float = 3600.0
    megabytes: float = 12000.0


def converted(shop: Workshop, row: Row, source: Path, name: str, array: npt.NDArray[Any]) -> tuple[Path, Row]:
    """The model, and the row with what is known of it; with a remark if there is no model.

    Args:
        shop: where and how.
        row: what is wanted.
        source: the float model.
        name: of its input.
        array: samples that calibrate and, of those that are left over, compare; float32 [n, ...].

    Raises:
        ConverterError: another tool's model cannot be run.
    """
    path = shop.folder / f"{stem_of(row)}.onnx"
    record, key = path.with_suffix(".json"), key_of(shop, row, source, array)
    if path.exists() and record.exists():
        kept = json.loads(record.read_text())
        if kept["key"] == key:
            return path, replace(row, **kept["made"])
    calib = shop.folder / f"{stem_of(row)}_calib.npz"
    write_files({calib: _npz(name, array)})
    try:
        ended = run_limited(
            _command(shop, row, source, path, calib), seconds=shop.seconds, megabytes=shop.megabytes, environment=_path(row)
        )
    finally:
        calib.unlink(missing_ok=True)
    if ended.code != 0:
        return path, replace(row, remark=ended.complaint[:200], seconds=ended.seconds, megabytes=ended.megabytes)
    made: dict[str, Any] = {**_told(ended), "megabytes": ended.megabytes}
    if row.method in PEERS:
        made |= _looked_at(source, path, name, array)
    write_files({record: (json.dumps({"key": key, "made": made}, indent=2) + "\n").encode()})
    return path, replace(row, **made)


def stem_of(row: Row) -> str:
    """What the model's file is called; the part of the images that judge does not change the model."""
    return "_".join(part for part in row.key[:-1] if part).replace(":", "_")


def key_of(shop: Workshop, row: Row, source: Path, array: npt.NDArray[Any]) -> str:
    """A digest of all that the model depends on: the sources that make it among it, and libraries."""
    digest = hashlib.sha256(source.read_bytes())
    digest.update(np.ascontiguousarray(array).tobytes())
    for file in _sources(_MAKES_OTHERS if row.method in PEERS else _MAKES_OURS):
        digest.update(file.read_bytes())
    digest.update("|".join([*row.key[1:-1], str(shop.samples), onnxruntime.__version__, onnx.__version__, np.__version__]).encode())
    return digest.hexdigest()


def _sources(places: Iterable[Path]) -> list[Path]:
    found = (file for place in places for file in ([place] if place.is_file() else place.rglob("*")))
    return sorted(file for file in found if file.suffix in (".py", ".toml") and not file.name.endswith("_test.py"))


def _npz(name: str, array: npt.NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    arrays: dict[str, Any] = {name: array}
    np.savez(stream, **arrays)
    return stream.getvalue()


def _command(shop: Workshop, row: Row, source: Path, path: Path, calib: Path) -> list[str]:
    files, samples = [str(source), str(path), str(calib)], ["--samples", str(shop.samples)]
    if row.method in PEERS:
        interpreter = shop.peers_python if row.method in ELSEWHERE else sys.executable
        return [interpreter, "-m", "tools.benchmarks.real.other_tools", row.method, *files, *samples]
    command = [sys.executable, "-m", "tools.benchmarks.real.make", *files, row.method, "--bits", row.bits, *samples]
    command += ["--placement", row.placement]
    return command + (["--without", *row.without.split("+")] if row.without else [])


def _path(row: Row) -> dict[str, str]:
    """Another interpreter finds this project, and its own packages."""
    mine = [] if row.method in ELSEWHERE else [p for p in sys.path if p]
    return {"PYTHONPATH": ":".join([str(_ROOT), *mine])}


def _told(ended: Ended) -> dict[str, float]:
    found: dict[str, float] = json.loads(ended.out.strip().splitlines()[-1])
    return found


def _looked_at(source: Path, path: Path, name: str, array: npt.NDArray[Any]) -> dict[str, float]:
    """What our own conversions tell by themselves: coverage, and costs by the target's prices."""
    model, target, feed = onnx.load(path), find_target(Options.target), {name: array[:1]}
    settings = settings_for(model)
    coverage = coverage_of(model, feed, settings).percent
    return {
        "coverage": coverage,
        "predicted": file_cost(model, feed, settings, target) / 1e6,
        "predicted_float": _of_float(source, name, array),
    }


def _of_float(source: Path, name: str, array: npt.NDArray[Any]) -> float:
    """Millions of instructions of the float network, priced as in the rows of our own methods."""
    seen = calibrate(load(source), Options(calib=[{name: image} for image in array[:_FEW]], samples=1, threads=1))
    return predict(seen.canonical.model, None, {}, seen.shapes, seen.target).total / 1e6
