"""Random valid graphs: each is converted by default and by ``mse``, and compared with float and with the stock tool."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random

from converter.testing.random_graphs.cases import (
    CALIBRATION_SAMPLES,
    FRESH_SAMPLES,
    METHODS,
    Case,
    Ending,
    convert_case,
    draw_case,
    worse_outputs,
)
from converter.testing.random_graphs.fairness import judge
from tools.benchmarks.compare.peers import ort_static
from tools.chaos import moved_db
from tools.fuzz.outcome import MOST_SECONDS, Outcome

__all__ = ["LEAST_PARITY_DB", "run"]

LEAST_PARITY_DB = 45.0
"""Of the emitted model against the simulation of its plan, unless the moving of one code of one input does as much."""


def run(seed: int, folder: Path) -> Outcome:
    """One graph; the folder is empty."""
    case = draw_case(Random(seed))
    endings = [convert_case(case, folder, method) for method in METHODS]
    faults: list[str] = []
    figures: dict[str, float] = {}
    for method, ending in zip(METHODS, endings, strict=True):
        faults += [f"{method}: {fault}" for fault in _faults(case, ending)]
        figures |= _figures(method, ending)
    faults += [f"worse than mse: {judgement}" for judgement in worse_outputs(case, folder, endings)]
    told = [f"{ending.code} {_kind(ending.reason)}".strip() for ending in endings]
    if not any(ending.code for ending in endings):
        told.append(_beside_stock(case, folder, endings[-1].path))
    slowest = max(ending.seconds for ending in endings)
    return Outcome(
        "graphs", seed, f"--placement {case.placement}: {' '.join(case.steps)}", tuple(told), tuple(faults), slowest, figures=figures
    )


def _faults(case: Case, ending: Ending) -> list[str]:
    faults = []
    if ending.code not in (0, 3, 4):  # nothing is wrong with these models: a failed verification is a fault of the conversion
        faults.append(f"exit {ending.code}: {ending.reason.strip().splitlines()[-1 if ending.code == 1 else 0]}")
    if ending.seconds > MOST_SECONDS:
        faults.append(f"{ending.seconds:.0f} s")
    verdict = ending.report and ending.report.verdict
    if verdict and verdict.parity_db is not None and verdict.parity_db < LEAST_PARITY_DB:
        moved = moved_db(ending.path, case.feeds(1, seed=4)[0])
        if moved > verdict.parity_db:
            faults.append(f"parity {verdict.parity_db:.1f} dB, and a moved code makes no more than {moved:.1f} dB")
    return faults


def _figures(method: str, ending: Ending) -> dict[str, float]:
    verdict = ending.report and ending.report.verdict
    found = [output.sqnr_db for output in verdict.outputs if output.sqnr_db is not None] if verdict else []
    return {f"{method} dB": min(found)} if found else {}


def _beside_stock(case: Case, folder: Path, converted: Path) -> str:
    """How the default compares with ONNX Runtime's own static quantization on fresh samples."""
    try:
        stock = ort_static(folder / "float.onnx", case.feeds(CALIBRATION_SAMPLES, seed=2))
        (folder / "stock.onnx").write_bytes(stock.SerializeToString())
        judged = judge(case.model, [folder / "stock.onnx", converted], case.feeds(FRESH_SAMPLES, seed=3))
    except Exception as error:  # whatever another tool, or a session of what it made, raises
        return f"stock tool fails: {type(error).__name__}"
    return "behind the stock tool" if any(j.worse for j in judged) else "not behind the stock tool"


def _kind(reason: str) -> str:
    """An error's first line, or a traceback's last, without names and numbers."""
    lines: Sequence[str] = reason.strip().splitlines() or [""]
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return re.sub(r"'[^']*'|-?\d+(\.\d+)?(e[+-]?\d+)?", "*", line)[:120]
