"""Jobs for ONNX Runtime Web: a folder with models, inputs and a list of tasks, which a script performs where it runs.

``runner.mjs`` performs the tasks, with one thread, what a page gets that is not isolated from others:

* ``outputs``: run a model on feeds, and keep what it gives;
* ``latencies``: run models in turns on one feed, and keep the milliseconds of each run;
* ``profiles``: run models in turns, each on a feed of its own, with the runtime's profile (in Node only).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from converter.errors import UsageError
from converter.runtime.session import Feed

__all__ = ["Job", "read_outputs"]

_TYPES = {"float32": "f4", "float64": "f8", "int8": "i1", "uint8": "u1", "int32": "i4", "int64": "i8", "bool": "?"}
"""What the runtime calls types: NumPy's name of them."""


class Job:
    """A folder that is filled with tasks, each known by its place in the list."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tasks: list[dict[str, Any]] = []
        self._files = 0

    def model(self, model: onnx.ModelProto | Path) -> str:
        """Keep a model; returns the name of its file."""
        return self._kept(model.read_bytes() if isinstance(model, Path) else model.SerializeToString())

    def feed(self, feed: Feed) -> dict[str, Any]:
        """Keep one sample; returns its description.

        Raises:
            UsageError: a type that these scripts do not pass on.
        """
        for name, array in feed.items():
            if array.dtype.name not in _TYPES:
                raise UsageError(f"inputs of type {array.dtype.name} cannot be given to ONNX Runtime Web here", where=f"input '{name}'")
        return {
            name: {"type": array.dtype.name, "dims": list(array.shape), "file": self._kept(array.tobytes())} for name, array in feed.items()
        }

    def outputs(self, model: str, feeds: Sequence[Mapping[str, Any]]) -> None:
        """Add a task whose result :func:`read_outputs` reads."""
        self.tasks.append({"kind": "outputs", "model": model, "feeds": list(feeds), "results": f"outputs{len(self.tasks)}"})

    def latencies(self, models: Sequence[str], feed: Mapping[str, Any], *, warm: int, turns: int) -> None:
        """Add a task whose result is a list of milliseconds for each model, one for each turn after those that warm up."""
        self.tasks.append({"kind": "latencies", "models": list(models), "feed": feed, "warm": warm, "turns": turns})

    def profiles(self, models: Sequence[tuple[str, Mapping[str, Any]]], *, runs: int) -> None:
        """Add a task that writes a profile for each model and its feed."""
        self.tasks.append({"kind": "profiles", "models": [{"model": m, "feed": f} for m, f in models], "runs": runs})

    def write(self) -> None:
        """Write the list of tasks, when it is complete."""
        (self.folder / "job.json").write_text(json.dumps({"tasks": self.tasks}))

    def results(self) -> list[Any]:
        """What the script wrote, a result for each task."""
        found: list[Any] = json.loads((self.folder / "results.json").read_text())
        return found

    def _kept(self, content: bytes) -> str:
        self._files += 1
        name = f"file{self._files}"
        (self.folder / name).write_bytes(content)
        return name


def read_outputs(result: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, npt.NDArray[Any]]]:
    """Outputs by name for each feed of an ``outputs`` task."""
    return [
        {
            name: np.frombuffer((folder / each["file"]).read_bytes(), _TYPES[each["type"]]).reshape(each["dims"])
            for name, each in outputs.items()
        }
        for outputs in result
    ]
