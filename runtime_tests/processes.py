"""What takes fresh processes: peak memory, and outputs in another version of ONNX Runtime."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from converter.errors import ModelError
from converter.quantization.output_codes import output_grids, with_numbers
from converter.runtime.session import first_line, open_session, run_session
from runtime_tests.emulation.compare import Difference, difference
from runtime_tests.emulation.external import run_program
from runtime_tests.emulation.guest import load_tensors, save_tensors
from runtime_tests.emulation.inputs import Samples
from runtime_tests.model_pair import ModelPair, stacked

__all__ = ["OLDEST", "Memory", "Predictions", "measure_memory", "measure_version", "predictions", "run_child", "summed"]

OLDEST = Path(sys.prefix) / "oldest-onnxruntime"
"""Where the Makefile puts the oldest version that is supported."""

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Memory:
    """Peaks of resident memory of fresh processes that load a model and run it once, on one thread, and sizes of files; bytes.

    Attributes:
        process: a process that imports the runtime and loads nothing.
        float_peak: with the float model.
        int8_peak: with the int8 model.
        float_size: of the float file and its external data.
        int8_size: of the int8 file and its external data.
    """

    process: int
    float_peak: int
    int8_peak: int
    float_size: int
    int8_size: int


@dataclass(frozen=True)
class Predictions:
    """The int8 model somewhere else against the reference: another core, or another version of the runtime.

    Attributes:
        reference: a core or a version.
        other: a core, a version, or this machine's architecture with the target's kernels.
        predictions: rows of class scores; 0 if no output has rows.
        equal: those whose highest score is at the same place.
        largest: largest absolute difference of any output, over the largest absolute value of that output.
    """

    reference: str
    other: str
    predictions: int
    equal: int
    largest: float


def measure_memory(model_pair: ModelPair) -> Memory:
    """Run each model once in a process of its own.

    Raises:
        ModelError: one does not run there.
    """
    feed = stacked(model_pair.feeds[:1])
    settings: tuple[Mapping[str, str], ...] = ({}, {}, model_pair.settings)
    with tempfile.TemporaryDirectory(prefix="runtime-tests-") as folder:
        jobs = zip((None, model_pair.float_file(Path(folder)), model_pair.path), settings, strict=True)
        peaks = [int(run_child(model, with_settings, feed, None)[0]["peak"]) for model, with_settings in jobs]
    return Memory(peaks[0], peaks[1], peaks[2], model_pair.floats.bytes, model_pair.bytes)


def measure_version(model_pair: ModelPair, folder: Path) -> Predictions:
    """Compare outputs under the runtime in ``folder``, as pip's ``--target`` leaves it, with those under the one that is installed.

    Raises:
        ModelError: the model does not run there.
    """
    told, got = run_child(model_pair.path, model_pair.settings, stacked(model_pair.feeds), folder)
    session = open_session(model_pair.model, threads=1, settings=model_pair.settings)
    grids = output_grids({entry.key: entry.value for entry in model_pair.model.metadata_props})
    wanted = stacked(tuple(run_session(session, feed) for feed in model_pair.feeds))
    return predictions(f"ONNX Runtime {onnxruntime.__version__}", f"ONNX Runtime {told['onnxruntime']}", wanted, with_numbers(got, grids))


def predictions(reference: str, other: str, wanted: Samples, got: Samples) -> Predictions:
    """Compare outputs, samples along axis 0."""
    return summed(reference, other, [difference(other, "", name, wanted[name], got[name]) for name in wanted])


def summed(reference: str, other: str, found: Sequence[Difference]) -> Predictions:
    """All outputs together."""
    largest = max(d.largest / d.scale if d.scale else d.largest for d in found)
    return Predictions(reference, other, sum(d.predictions for d in found), sum(d.equal for d in found), largest)


def run_child(model: Path | None, settings: Mapping[str, str], samples: Samples, runtime: Path | None) -> tuple[dict[str, Any], Samples]:
    """Run a model in a process of its own.

    Args:
        model: None to see what a process takes without one.
        settings: of the session.
        samples: along axis 0.
        runtime: folder that pip's ``--target`` has left; None for the installed runtime, whose outputs are not kept.

    Returns:
        what the process tells of itself (``onnxruntime``, ``peak``, see :mod:`runtime_tests.child`), and outputs, samples along axis 0.

    Raises:
        ModelError: the model does not run there.
    """
    with tempfile.TemporaryDirectory(prefix="runtime-tests-") as name:
        folder = Path(name)
        save_tensors(folder / "samples.npz", samples)
        job = {
            "model": None if model is None else str(model.absolute()),
            "settings": dict(settings),
            "samples": str(folder / "samples.npz"),
            "outputs": str(folder / "outputs.npz") if runtime is not None else None,
        }
        (folder / "job.json").write_text(json.dumps(job))
        path = os.pathsep.join(str(part) for part in (runtime, _ROOT) if part is not None)
        text = run_program(
            [sys.executable, "-m", "runtime_tests.child", str(folder / "job.json")],
            "running a model in a process of its own",
            hint="see whether there is enough memory, and whether ONNX Runtime can be imported",
            variables={**os.environ, "PYTHONPATH": path},
        )
        told: dict[str, Any] = json.loads(text.splitlines()[-1])
        if told["error"] is not None:
            raise ModelError(f"it does not run in ONNX Runtime {told['onnxruntime']}: {first_line(told['error'])}", where=str(model))
        return told, load_tensors(folder / "outputs.npz") if runtime is not None else {}
