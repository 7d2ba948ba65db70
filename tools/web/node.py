"""Jobs in Node, which runs the same WebAssembly as a browser."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converter.errors import ConverterError
from tools.web.jobs import Job
from tools.web.package import Package, find_node

__all__ = ["run_in_node"]

_SCRIPT = Path(__file__).with_name("in_node.mjs")

OPTIMISED = "--no-liftoff"
"""Compile WebAssembly at once as well as can be: what a page has after some hundred runs."""


def run_in_node(job: Job, package: Package) -> list[list[dict[str, Any]]]:
    """Perform a job; returns the profiles in the order in which they ended, each a list of events.

    Raises:
        UsageError: there is no Node.
        ConverterError: the runtime fails.
    """
    job.write()
    command = [find_node(), OPTIMISED, str(_SCRIPT), str(package.folder), str(job.folder)]
    out = job.folder / "stdout"
    with out.open("wb") as stdout:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True, errors="replace")
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise ConverterError(f"ONNX Runtime Web fails in Node: {said[:200]}", where=f"onnxruntime-web {package.version}")
    return list(_profiles(out.read_text()))


def _profiles(text: str) -> Iterator[list[dict[str, Any]]]:
    """JSON arrays, one behind the other."""
    decoder = json.JSONDecoder()
    at = text.find("[")
    while at >= 0:
        events, end = decoder.raw_decode(text, at)
        yield events
        at = text.find("[", end)
