"""Files in importers, each in a process of its own, compared with ONNX Runtime."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.runtime.session import open_session, run_session
from runtime_tests.emulation.guest import load_tensors, save_tensors
from runtime_tests.emulation.inputs import Samples
from runtime_tests.model_pair import stacked
from tools.processes import Ended, run_limited

__all__ = ["Cell", "complaint", "reference_outputs", "run_importer"]

LEAST_AGREEMENT = 0.9
"""Share of predictions that must be ONNX Runtime's. Other kernels round otherwise, which decides ties: two or three of a few dozen."""

_ROOT = Path(__file__).resolve().parents[2]
_LONGEST = 110  # of a complaint in the table


@dataclass(frozen=True)
class Cell:
    """A file in an importer.

    Attributes:
        version: of the importer; empty if it does not say.
        state: ``done``; ``missing``: the importer is not installed; ``load`` or ``run``: it failed there; ``ended``: the process did
            not come to its end.
        complaint: the first line of what the importer says, or how its process ended.
        predictions: rows of scores.
        equal: those with the highest score where ONNX Runtime has it.
        decibels: largest score of ONNX Runtime's over the largest difference from them; infinite if there is none.
    """

    version: str
    state: str
    complaint: str = ""
    predictions: int = 0
    equal: int = 0
    decibels: float = math.nan

    @property
    def right(self) -> bool:
        """Whether the file runs, with nearly all of ONNX Runtime's predictions."""
        return self.state == "done" and self.equal >= LEAST_AGREEMENT * self.predictions

    @property
    def text(self) -> str:
        """For the table."""
        words = self.complaint[:_LONGEST].replace("|", " ").strip()
        if self.state != "done":
            return {"missing": "not installed", "load": f"does not load: {words}", "run": f"does not run: {words}"}.get(self.state, words)
        same = f"{self.equal} of {self.predictions} ({self.equal / self.predictions:.0%}) the same, " if self.predictions else ""
        return f"{'' if self.right else 'WRONG: '}{same}{'equal' if math.isinf(self.decibels) else f'{self.decibels:.0f} dB'}"


def complaint(text: str) -> str:
    """The first line of an error that says what is wrong, without places in sources.

    Some importers begin with the place in their source and a bare "check failed": those lines are passed over.
    """
    lines = [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not re.search(r"^(\w+: )?(Exception from |Check '.*failed at )\S*", line)]
    line = (telling or [line for line in lines if line] or ["no message"])[0]
    return re.sub(r"/\S+/(?=\S+\.\w+)", "", line)


def reference_outputs(path: Path, samples: Samples, settings: Mapping[str, str]) -> list[npt.NDArray[Any]]:
    """ONNX Runtime's outputs in the order of the graph's, samples along axis 0.

    Args:
        path: the model.
        samples: inputs by name, samples along axis 0.
        settings: of the session, such as those that choose exact kernels.

    Raises:
        ModelError: it does not run.
    """
    session = open_session(path, threads=1, settings=settings)
    count = len(next(iter(samples.values())))
    found = stacked(tuple(run_session(session, {name: x[place] for name, x in samples.items()}) for place in range(count)))
    return list(found.values())


def run_importer(
    importer: str,
    path: Path,
    samples: Samples,
    wanted: Sequence[npt.NDArray[Any]],
    *,
    packages: Path | None,
    seconds: float,
    megabytes: float,
) -> Cell:
    """Run a file in an importer, which may crash, hang or take too much memory.

    Args:
        importer: one of :data:`tools.importers.engines.IMPORTERS`.
        path: the model.
        samples: inputs by name, samples along axis 0.
        wanted: ONNX Runtime's outputs.
        packages: folder that pip's ``--target`` has left, with importers that are not installed otherwise.
        seconds: that it may take.
        megabytes: that it may hold.
    """
    with tempfile.TemporaryDirectory(prefix="importers-") as name:
        folder = Path(name)
        save_tensors(folder / "samples.npz", samples)
        outputs = folder / "outputs.npz"
        job = {"importer": importer, "model": str(path.absolute()), "samples": str(folder / "samples.npz"), "outputs": str(outputs)}
        (folder / "job.json").write_text(json.dumps(job))
        variables = {"PYTHONPATH": os.pathsep.join(str(p.absolute()) for p in (_ROOT, packages) if p is not None), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tools.importers.child", str(folder / "job.json")]
        ended = run_limited(command, seconds=seconds, megabytes=megabytes, environment=variables)
        if ended.code != 0:
            return Cell("", "ended", _how_it_ended(ended))
        told = json.loads(ended.out.splitlines()[-1])
        if told["stage"] != "done":
            return Cell(told["version"], told["stage"], complaint(told["error"]))
        return compared(told["version"], wanted, list(load_tensors(outputs).values()))


def _how_it_ended(ended: Ended) -> str:
    """What ended the process, and the last line that it wrote to say why."""
    if ended.code is None or ended.code > 0:
        return ended.complaint
    lines = [line.strip() for line in ended.err.splitlines() if line.strip()]
    return f"{ended.complaint}: {lines[-1]}" if lines else ended.complaint


def compared(version: str, wanted: Sequence[npt.NDArray[Any]], got: Sequence[npt.NDArray[Any]]) -> Cell:
    """Compare outputs, samples along axis 0. Predictions are made along the last axis of outputs of [samples, batch, classes]."""
    if [x.shape for x in wanted] != [x.shape for x in got]:
        shapes = f"{', '.join(str(x.shape) for x in got)} instead of {', '.join(str(x.shape) for x in wanted)}"
        return Cell(version, "run", f"outputs have shapes {shapes}")
    scores = [place for place, x in enumerate(wanted) if x.ndim == 3 and x.shape[-1] > 1]
    equal = [x.argmax(-1) == y.argmax(-1) for x, y in ((wanted[place], got[place]) for place in scores)]
    decibels = min(_decibels(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(wanted, got, strict=True))
    return Cell(version, "done", "", sum(e.size for e in equal), sum(int(e.sum()) for e in equal), decibels)


def _decibels(wanted: npt.NDArray[np.float64], got: npt.NDArray[np.float64]) -> float:
    largest, off = np.abs(wanted).max(), np.abs(wanted - got).max()
    if off == 0.0:
        return math.inf
    return float(20 * np.log10(largest / off)) if np.isfinite(off) and largest > 0 else -math.inf
