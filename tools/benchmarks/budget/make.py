"""The int8 model of a row: made in a process of its own, by ``convert.py`` or by another tool, or taken from an earlier run."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.errors import ConverterError
from converter.load.files import write_files
from tools.benchmarks.budget.judge import SCORE
from tools.benchmarks.budget.rows import OURS, Row
from tools.benchmarks.budget.subjects import Subject
from tools.benchmarks.real.answers import chosen
from tools.processes import run_limited

__all__ = ["Workshop", "made", "path_of"]

_ROOT = Path(__file__).parents[3]
_MISSED = 6
"""Exit code of ``convert.py`` where nothing holds the budget."""


@dataclass(frozen=True)
class Workshop:
    """Where and how models are made.

    Attributes:
        data: folder of networks and images.
        folder: for models; one that is there with what is known of it is used again.
        pythons: interpreters of the other tools.
        samples: how many calibrate.
        most: quantized models that are evaluated.
        seconds: that making a model may take.
    """

    data: Path
    folder: Path
    pythons: dict[str, str] = field(default_factory=dict)
    samples: int = 32
    most: int = 12
    seconds: float = 7200.0


def path_of(shop: Workshop, row: Row) -> Path:
    """Where the model of a row is."""
    return shop.folder / f"{'_'.join(row.key)}.onnx"


def made(shop: Workshop, row: Row, subject: Subject) -> Row:
    """The row with what making its model took; the model is at :func:`path_of`.

    Raises:
        ConverterError: there is no model; its words are the tool's.
    """
    path, record = path_of(shop, row), path_of(shop, row).with_suffix(".json")
    if not (path.exists() and record.exists()):
        known = _ours(shop, row, subject, path) if row.tool == OURS else _others(shop, row, path)
        write_files({record: (json.dumps(known, indent=2) + "\n").encode()})
    return replace(row, **json.loads(record.read_text()))


def _ours(shop: Workshop, row: Row, subject: Subject, path: Path) -> dict[str, Any]:
    """Run ``convert.py`` as a user does, and read its report."""
    array, _ = subject.task.calibration(shop.data, 0)
    report = path.with_suffix(".report.json")
    calib = _arrays(path.with_suffix(".calib.npz"), subject, array)
    command = [sys.executable, "convert.py", str(subject.path), str(path), "--calib", str(calib), "--samples", str(shop.samples)]
    command += ["--bits", row.bits, "--threads", "1", "--json", str(report)]
    command += ["--max-drop", row.limit, "--max-evaluations", str(shop.most), "--keep-best"]
    if row.metric == SCORE:
        command += ["--metric", subject.command]
    else:
        values = [sample.value for sample in chosen("even", subject.task.samples(shop.data, frozenset()))]
        command += ["--metric", row.metric, "--eval", str(_arrays(path.with_suffix(".even.npz"), subject, np.stack(values)))]
    ended = run_limited(command, seconds=shop.seconds, environment={"PYTHONPATH": str(_ROOT)})
    for file in (".calib.npz", ".even.npz"):
        path.with_suffix(file).unlink(missing_ok=True)
    if ended.code not in (0, _MISSED) or not report.exists():
        raise ConverterError(ended.complaint, where=row.tool)
    told = json.loads(report.read_text())
    return {
        "evaluations": told["budget"]["evaluations"],
        "coverage": 100.0 * told["integer_coverage"],
        "predicted": told["predicted"] / 1e6,
    }


def _others(shop: Workshop, row: Row, path: Path) -> dict[str, Any]:
    command = [
        shop.pythons.get(row.tool, sys.executable),
        "-m",
        "tools.benchmarks.budget.peers",
        row.tool,
        row.network,
        row.metric,
        row.limit,
    ]
    command += [str(path), "--data", str(shop.data), "--folder", str(shop.folder), "--samples", str(shop.samples), "--most", str(shop.most)]
    ended = run_limited(command, seconds=shop.seconds, environment={"PYTHONPATH": str(_ROOT)})
    if ended.code != 0:
        raise ConverterError(ended.complaint.removeprefix("error: "), where=row.tool)
    found: dict[str, Any] = json.loads(ended.out.strip().splitlines()[-1])
    return found


def _arrays(path: Path, subject: Subject, array: npt.NDArray[Any]) -> Path:
    arrays: dict[str, Any] = {subject.task.input: array}
    np.savez(path, **arrays)
    return path
