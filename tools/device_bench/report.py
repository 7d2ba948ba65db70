"""What was found on a device, as JSON and as a table."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from converter.runtime.latency import ratio_of_times
from tools.device_bench.answers import Answers
from tools.device_bench.bench import Found, Model, Ran, Settings
from tools.device_bench.state import Core, State

__all__ = ["MOST_NUMBERS", "board_row", "drift", "quantile", "report_json", "report_table"]

MOST_NUMBERS = 100_000
"""Outputs of more numbers stand in the JSON by their shape only."""

_MEGA = 1e6


def quantile(times: Sequence[float], share: float) -> float:
    """The smallest of the times that at least a share of all of them do not exceed."""
    return float(np.quantile(times, share, method="inverted_cdf"))


def drift(times: Sequence[float]) -> float:
    """Median of the last quarter of the runs over that of the first: above 1, the device became slower, as a hot one does."""
    quarter = max(len(times) // 4, 1)
    return statistics.median(times[-quarter:]) / statistics.median(times[:quarter])


def report_json(found: Found, settings: Settings, models: Sequence[Model], answers: Sequence[Answers]) -> str:
    """Everything, with the milliseconds of each run."""
    first = found.models[0]
    content = {
        "device": {
            "reached": found.device,
            "name": found.before.name,
            "kernel": found.before.kernel,
            "machine": found.machine,
            **found.versions,
            "cores": [dataclasses.asdict(core) for core in found.before.cores],
        },
        "settings": {
            "threads": settings.threads,
            "pinned": settings.cores != (),
            "cores": None if found.cores is None else list(found.cores),
            "warm": settings.warm,
            "seconds": settings.seconds,
        },
        "celsius": {"before": found.before.celsius, "after": found.after.celsius},
        "governors": {"before": _governors(found, found.before), "after": _governors(found, found.after)},
        "process_mb": found.process / _MEGA,
        "models": [
            {
                "file": model.path.name,
                "p50_ms": quantile(ran.times, 0.5),
                "p90_ms": quantile(ran.times, 0.9),
                "ratio": dataclasses.asdict(ratio_of_times(first.times, ran.times)),
                "drift": drift(ran.times),
                "memory_mb": ran.peak / _MEGA,
                "answers": dataclasses.asdict(each),
                "times_ms": list(ran.times),
                "outputs": _outputs(ran),
            }
            for model, ran, each in zip(models, found.models, answers, strict=True)
        ],
    }
    return json.dumps(content, indent=2) + "\n"


def _outputs(ran: Ran) -> dict[str, Any]:
    return {
        name: {"shape": list(values.shape), "values": values.tolist() if values.size <= MOST_NUMBERS else None}
        for name, values in ran.outputs.items()
    }


def _used(found: Found, state: State) -> list[Core]:
    """The cores on which the models ran; all, if the device does not tell."""
    return [core for core in state.cores if found.cores is None or core.number in found.cores]


def _governors(found: Found, state: State) -> list[str]:
    return sorted({core.governor for core in _used(found, state) if core.governor is not None})


def report_table(found: Found, models: Sequence[Model], answers: Sequence[Answers]) -> RenderableType:
    """A row for each model, and lines about the device."""
    table = Table(title=_title(found), title_justify="left")
    for heading in ("", "p50 ms", "p90 ms", "ratio", "drift", "peak MB", "largest difference", "same answers", "plan dB"):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for model, ran, each in zip(models, found.models, answers, strict=True):
        ratio = ratio_of_times(found.models[0].times, ran.times)
        here = each.here
        table.add_row(
            Text(model.path.name),
            f"{quantile(ran.times, 0.5):.3f}",
            f"{quantile(ran.times, 0.9):.3f}",
            f"{ratio.ratio:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
            f"{drift(ran.times):.2f}",
            f"{ran.peak / _MEGA:.1f}",
            f"{here.largest:.1e}",
            f"{here.equal} of {here.predictions}" if here.predictions else "no scores",
            "" if each.plan is None else f"{each.plan.parity_db:.1f}",
        )
    return Group(table, *(Text(line) for line in _lines(found)))


def _title(found: Found) -> str:
    names = {"onnxruntime": "ONNX Runtime", "numpy": "NumPy", "python": "Python"}
    versions = ", ".join(f"{name} {found.versions[part]}" for part, name in names.items() if part in found.versions)
    return f"{found.before.name or 'a device'} ({found.machine}), {versions}"


def _lines(found: Found) -> Iterator[str]:
    used = "any" if found.cores is None else ", ".join(map(str, found.cores))
    governors = ", ".join(_governors(found, found.before)) or "not told"
    turns = len(found.models[0].times)
    yield f"cores {used}; governor {governors}; {turns} turns; a process without a model has {found.process / _MEGA:.1f} MB"
    yield f"hottest place: {_hottest(found.before)} before, {_hottest(found.after)} after"


def _hottest(state: State) -> str:
    return f"{max(state.celsius.values()):.1f} °C" if state.celsius else "not told"


def board_row(found: Found, models: Sequence[Model]) -> str:
    """A line for the table of boards, for the float model and the last one."""
    first, last = found.models[0], found.models[-1]
    cells = [
        found.before.name or "?",
        found.machine,
        "?" if found.cores is None else " ".join(map(str, found.cores)),
        " ".join(_governors(found, found.before)) or "not told",
        f"{_hottest(found.before)} to {_hottest(found.after)}",
        found.versions["onnxruntime"],
        models[-1].path.name,
        f"{quantile(first.times, 0.5):.3f}",
        f"{quantile(last.times, 0.5):.3f}",
        f"{ratio_of_times(first.times, last.times).ratio:.2f}",
    ]
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
