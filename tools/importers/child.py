"""What runs in a process of its own: ``python -m tools.importers.child JOB.json``.

JOB.json names an importer, a model, samples and the file for outputs. The last line of stdout is JSON: the version of the importer, how
far it came and what it complains of. Nothing is printed if the importer ends the process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from runtime_tests.emulation.guest import load_tensors, save_tensors
from tools.importers.engines import IMPORTERS, Importer

__all__ = ["main"]


def _installed(importer: Importer) -> bool:
    try:
        return find_spec(importer.module) is not None
    except ModuleNotFoundError:  # the package around the module
        return False


def _version(importer: Importer) -> str:
    try:
        return version(importer.packages.split()[0])
    except PackageNotFoundError:
        return ""


def _run(job: Mapping[str, Any]) -> dict[str, str]:
    importer = IMPORTERS[job["importer"]]
    if not _installed(importer):
        return {"stage": "missing", "error": "", "version": ""}
    told = {"stage": "load", "error": "", "version": _version(importer)}
    try:
        run = importer.open(Path(job["model"]))
        told["stage"] = "run"
        samples = load_tensors(Path(job["samples"]))
        count = len(next(iter(samples.values())))
        found = [list(run({name: x[place] for name, x in samples.items()})) for place in range(count)]
        save_tensors(Path(job["outputs"]), {str(i): np.stack([outputs[i] for outputs in found]) for i in range(len(found[0]))})
        told["stage"] = "done"
    except Exception as error:  # an importer's exceptions share no base; the parent prints it
        told["error"] = f"{type(error).__name__}: {error}"
    return told


def main(arguments: Sequence[str]) -> int:
    """Run a job and print what came of it; 0 even if the importer failed, as the line says so."""
    told = _run(json.loads(Path(arguments[0]).read_text()))
    sys.stdout.write("\n" + json.dumps(told) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
