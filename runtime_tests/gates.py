"""Gates: limits that a model has to keep, in a small TOML file.

::

    min_ratio_a76 = 1.8        # min_ for what should be high, max_ for what should be low
    max_drop = 0.5

    [baseline]                 # no figure may be worse than in the JSON of an earlier run by more than this share
    file = "previous.json"     # relative to this file
    tolerance = 0.01
    figures = ["top1"]         # optional; without it, all in that file but those that depend on the clock or the day
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import UsageError
from runtime_tests.results import KINDS

__all__ = ["GATES", "Gate", "check_fine_enough", "check_measurable", "miss", "read_gates", "stored_figures"]

GATES: Mapping[str, str] = {f"{'min' if kind.higher_is_better else 'max'}_{name}": name for name, kind in KINDS.items()}
"""Every gate that can be in a file, and the figure it is about."""

_SLACK = 1e-9
"""Shares of images do not subtract exactly, and a limit may be reached."""

_BASELINE = "baseline"
_BASELINE_KEYS = ("file", "tolerance", "figures")


@dataclass(frozen=True)
class Gate:
    """A limit of a figure.

    Attributes:
        name: as in the file, or ``baseline`` and the figure.
        figure: one of :data:`runtime_tests.results.KINDS`.
        limit: that it may reach.
        origin: where the limit comes from, if not from the file itself.
        file: that has it.
    """

    name: str
    figure: str
    limit: float
    origin: str
    file: Path


def read_gates(paths: Sequence[Path]) -> list[Gate]:
    """Read gates from several files; where two name the same gate, the later file's counts.

    Raises:
        UsageError: a file cannot be read, an unknown name (with near ones), or a value that makes no sense.
    """
    gates: dict[str, Gate] = {}
    for path in paths:
        content = _toml(path)
        table = content.pop(_BASELINE, None)
        for name, value in content.items():
            gates[name] = _gate(path, name, value)
        if table is not None:
            gates |= {gate.name: gate for gate in _baseline(path, table)}
    return list(gates.values())


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the gates cannot be read: {error.strerror}", where=f"--gates {path}", hint="check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the gates are not TOML: {error}", where=f"--gates {path}", hint="write lines like min_coverage = 90") from None


def _gate(path: Path, name: str, value: Any) -> Gate:
    where = f"{path}: {name}"
    if name not in GATES:
        near = difflib.get_close_matches(name, [*GATES, _BASELINE], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known ones: {', '.join(GATES)}"
        raise UsageError(f"there is no gate '{name}'", where=where, hint=hint)
    limit = _number(value, where)
    if KINDS[GATES[name]].percent and 0 < limit <= 1:
        raise UsageError(f"{limit:g} looks like a share", where=where, hint=f"give it in percent: {100 * limit:g}")
    return Gate(name, GATES[name], limit, "", path)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{value!r} is not a number", where=where, hint="give one, without quotes")
    return float(value)


def _baseline(path: Path, table: Any) -> list[Gate]:
    where = f"{path}: [{_BASELINE}]"
    if not isinstance(table, dict) or not isinstance(table.get("file"), str):
        raise UsageError("the baseline names no file", where=where, hint='write file = "previous.json" below [baseline]')
    for name in table:
        if name not in _BASELINE_KEYS:
            near = difflib.get_close_matches(name, _BASELINE_KEYS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known ones: {', '.join(_BASELINE_KEYS)}"
            raise UsageError(f"there is no '{name}'", where=where, hint=hint)
    tolerance = _number(table.get("tolerance", 0.0), f"{where} tolerance")
    if not 0 <= tolerance < 1:
        raise UsageError(f"a tolerance of {tolerance:g} makes no sense", where=where, hint="it is a share: 0.01 is one percent")
    stored = stored_figures(path.parent / table["file"])
    names = _compared(table.get("figures"), stored, where)
    if not names:
        hint = "write it with --json and the flags that measure the figures, or name some as figures = [...]"
        raise UsageError(f"{table['file']} has no figure to compare with", where=where, hint=hint)
    origin = f"{table['file']}, tolerance {tolerance:g}"
    return [Gate(f"{_BASELINE} {name}", name, _worse(name, stored[name], tolerance), origin, path) for name in names]


def stored_figures(path: Path) -> dict[str, float]:
    """The figures of a validation that was written with ``--json``.

    Raises:
        UsageError: the file cannot be read, or is something else.
    """
    hint = "write one with --json, and keep it beside the gates"
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
        return {str(name): float(value) for name, value in figures.items()}
    except OSError as error:
        raise UsageError(f"the baseline cannot be read: {error.strerror}", where=str(path), hint=hint) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError("the baseline is not the JSON of a validation", where=str(path), hint=hint) from None


def _compared(wanted: Any, stored: Mapping[str, float], where: str) -> list[str]:
    """The figures named, else all that are steady."""
    if wanted is None:
        return [name for name in stored if name in KINDS and KINDS[name].steady]
    if not isinstance(wanted, list):
        raise UsageError("figures is not a list", where=where, hint='write figures = ["top1", "coverage"]')
    for name in wanted:
        if name not in stored or name not in KINDS:
            near = difflib.get_close_matches(str(name), list(stored), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(stored)}"
            raise UsageError(f"the baseline has no figure '{name}'", where=where, hint=hint)
    return [str(name) for name in wanted]


def _worse(name: str, value: float, tolerance: float) -> float:
    margin = abs(value) * tolerance
    return value - margin if KINDS[name].higher_is_better else value + margin


def check_measurable(gates: Sequence[Gate], measured: Collection[str]) -> None:
    """Refuse a gate on a figure that is not, or was not, measured: it would pass whatever the model does.

    Raises:
        UsageError: names the gate and what measures its figure.
    """
    for gate in gates:
        if gate.figure not in measured:
            needs = KINDS[gate.figure].needs
            raise UsageError(f"'{gate.figure}' is not measured", where=f"{gate.file}: {gate.name}", hint=f"give {needs}, or drop the gate")


def check_fine_enough(gates: Sequence[Gate], images: int) -> None:
    """Refuse a limit of the drop that so few images cannot tell from none: one image more or less is a larger step.

    Raises:
        UsageError: names the gate and how many images it takes.
    """
    for gate in gates:
        if gate.figure == "drop" and 0 < gate.limit < 100.0 / images - _SLACK:
            what = f"{images} images cannot show a drop of {gate.limit:g} points: one image is {100.0 / images:.4g}"
            raise UsageError(what, where=f"{gate.file}: {gate.name}", hint=f"classify {math.ceil(round(100.0 / gate.limit, 6))} or more")


def miss(gate: Gate, value: float) -> str:
    """How a figure misses a gate: figure, value and limit; an empty text if it does not."""
    high = KINDS[gate.figure].higher_is_better
    if value >= gate.limit - _SLACK if high else value <= gate.limit + _SLACK:
        return ""
    shown = f"{gate.figure} is {value:.5g}, the limit is {'at least' if high else 'at most'} {gate.limit:.5g}"
    return f"{shown} ({gate.origin})" if gate.origin else shown
