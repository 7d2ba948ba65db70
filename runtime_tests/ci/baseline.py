"""The baseline: what of a validation is kept beside the gates, and its earlier versions, from Git."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import ConverterError, UsageError
from runtime_tests.emulation.external import run_program
from runtime_tests.gates import stored_figures
from runtime_tests.results import KINDS

__all__ = ["Version", "baseline_text", "versions"]


@dataclass(frozen=True)
class Version:
    """A baseline at one time.

    Attributes:
        commit: its short name; empty for what is not committed.
        day: of the commit, as 2026-11-30.
        subject: first line of its message.
        figures: in it.
    """

    commit: str
    day: str
    subject: str
    figures: Mapping[str, float]


def baseline_text(path: Path) -> str:
    """What is kept of a validation: the figures that do not depend on clock or day, and which models and runtime they are of.

    Raises:
        UsageError: the file is not the JSON of a validation, or has no such figure.
    """
    figures = {name: value for name, value in stored_figures(path).items() if name in KINDS and KINDS[name].steady}
    if not figures:
        raise UsageError("the validation has no figure to keep", where=str(path), hint="write it with python -m runtime_tests --json")
    whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    kept: dict[str, Any] = {"figures": figures, **{part: whole[part] for part in ("models", "machine") if part in whole}}
    return json.dumps(kept, indent=2) + "\n"


def versions(path: Path) -> list[Version]:
    """Every committed version of a baseline, the first one first. Versions that are no baselines are left out.

    Raises:
        UsageError: it is in no Git repository, or Git is not installed.
    """
    git = ["git", "-C", str(path.resolve().parent)]
    hint = "run it in a clone with its whole history (fetch-depth: 0)"
    what = "reading the history of the baseline"
    try:
        log = run_program([*git, "log", "--reverse", "--format=%H%x09%cs%x09%s", "--", path.name], what, hint=hint, install="git")
    except UsageError:
        raise
    except ConverterError as error:
        raise UsageError(f"Git does not tell the history: {error.what}", where=str(path), hint=hint) from None
    found = []
    for line in log.splitlines():
        commit, day, subject = line.split("\t", 2)
        figures = _figures_at(git, commit, path, what, hint)
        if figures is not None:
            found.append(Version(commit[:10], day, subject, figures))
    return found


def _figures_at(git: list[str], commit: str, path: Path, what: str, hint: str) -> dict[str, float] | None:
    """None if there was no such file, as after it was removed, or another one."""
    try:
        content = json.loads(run_program([*git, "show", f"{commit}:./{path.name}"], what, hint=hint, install="git"))
        return {str(name): float(value) for name, value in content["figures"].items()}
    except (ConverterError, ValueError, KeyError, TypeError, AttributeError):
        return None
