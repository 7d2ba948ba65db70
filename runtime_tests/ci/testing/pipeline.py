"""The steps of the templates, run here as their runners do: each a script for bash, in a clone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
_ROOT = Path(__file__).resolve().parents[3]

INSTALL = "install"
"""The step that is left out: what it installs is what runs the tests."""


def variables(clone: Path, more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a step: this Python first in PATH, and nothing of the user's own configuration."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    home = clone.parent / "home"
    home.mkdir(exist_ok=True)
    return {"PATH": path, "PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "HOME": str(home), **more}


def github(workflow: Path, clone: Path, env: Mapping[str, str]) -> tuple[int, list[str]]:
    """Run the job ``validate`` of a workflow; returns the first exit code that is not 0, or 0, and the names of the steps that ran."""
    job: dict[str, Any] = yaml.safe_load(workflow.read_text())["jobs"]["validate"]
    assert job["defaults"]["run"]["shell"] == "bash"
    given = {**job["env"], "GITHUB_STEP_SUMMARY": str(clone / "summary.md"), **env}
    code, ran = 0, []
    for step in job["steps"]:
        if "run" in step and step["name"] != INSTALL and (code == 0 or step.get("if") == "always()"):
            ran.append(step["name"])
            ended = _bash(step["run"], clone, given)
            code = code or ended
    return code, ran


def gitlab(template: Path, clone: Path, env: Mapping[str, str]) -> int:
    """Run ``script``, whose lines are one shell's, and ``after_script``, whose code does not count; returns the code of the former."""
    job: dict[str, Any] = yaml.safe_load(template.read_text())["int8"]
    code = _bash("\n".join(job["script"]), clone, env)
    assert _bash("\n".join(job["after_script"]), clone, env) == 0
    return code


def _bash(script: str, clone: Path, env: Mapping[str, str]) -> int:
    command: Sequence[str] = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script)
    return subprocess.run(command, cwd=clone, env=variables(clone, env), stdin=subprocess.DEVNULL).returncode
