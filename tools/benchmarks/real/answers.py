"""Answers of networks to the images of a task. Those of a float network are kept on the disk, as every row is compared with them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from converter.runtime.session import open_session, run_session
from tools.benchmarks.real.networks.task import Sample, Task, float_model
from tools.benchmarks.real.session_settings import settings_for

__all__ = ["FloatAnswers", "answerer", "chosen", "float_answers"]

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]

_NAMES = "names.json"


@dataclass(frozen=True, eq=False)
class FloatAnswers:
    """What the float network says to all images of a task.

    Attributes:
        places: of each image, by its name.
        outputs: by name, float32 [images, ...], read from the disk as they are needed.
    """

    places: Mapping[str, int]
    outputs: Mapping[str, Array]

    def of(self, sample: str) -> Outputs:
        """Outputs for one image, with a batch axis of 1."""
        place = self.places[sample]
        return {name: np.asarray(array[place : place + 1]) for name, array in self.outputs.items()}


def answerer(model: Path, input_name: str, threads: int) -> Callable[[Array], Outputs]:
    """Open a model, float or quantized; what it says to one image without batch axis.

    Raises:
        ModelError: the runtime does not accept it, or, when called, fails.
    """
    loaded = onnx.load(model)
    session = open_session(loaded, threads=threads, settings=settings_for(loaded))
    return lambda value: run_session(session, {input_name: value[None]})


def float_answers(task: Task, data: Path, folder: Path, threads: int) -> FloatAnswers:
    """The answers to all images that any row of the task is judged on, from an earlier run if it was of the same files.

    Raises:
        ModelError: the network does not run.
    """
    source = float_model(task, data, folder)
    place = folder / f"{task.name}_float_{_digest(task, source, data)}"
    if not (place / _NAMES).exists():
        part = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=folder))
        try:
            _write(part, answerer(source, task.input, threads), task.samples(data, frozenset()))
            with contextlib.suppress(OSError):  # another row may have been faster
                part.rename(place)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    kept = json.loads((place / _NAMES).read_text())
    outputs = {name: np.load(place / f"{number}.npy", mmap_mode="r") for number, name in enumerate(kept["outputs"])}
    return FloatAnswers({name: number for number, name in enumerate(kept["images"])}, outputs)


def _digest(task: Task, source: Path, data: Path) -> str:
    """Of the network, of how images are prepared, and of the files that hold them."""
    digest = hashlib.sha256(source.read_bytes())
    for file in sorted(Path(__file__).with_name("networks").glob("*.py")):
        digest.update(file.read_bytes())
    packs = sorted(file for file in data.rglob("*.zip"))
    digest.update("|".join([onnxruntime.__version__, *(f"{pack} {pack.stat().st_size}" for pack in packs)]).encode())
    return digest.hexdigest()[:16]


def _write(folder: Path, answers: Callable[[Array], Outputs], samples: Iterable[Sample]) -> None:
    names: list[str] = []
    outputs: list[str] = []
    with contextlib.ExitStack() as files:
        streams: dict[str, Any] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for sample in samples:
            for name, array in answers(sample.value).items():
                if name not in streams:
                    streams[name] = files.enter_context((folder / f"{len(outputs)}.raw").open("wb"))
                    shapes[name] = array.shape[1:]
                    outputs.append(name)
                streams[name].write(np.ascontiguousarray(array, np.float32).tobytes())
            names.append(sample.name)
    for number, name in enumerate(outputs):
        raw = folder / f"{number}.raw"
        np.save(folder / f"{number}.npy", np.memmap(raw, np.float32, "r", shape=(len(names), *shapes[name])))
        raw.unlink()
    (folder / _NAMES).write_text(json.dumps({"images": names, "outputs": outputs}))


def chosen(part: str, samples: Iterable[Sample]) -> Iterator[Sample]:
    """Those at even or odd places, or all."""
    for place, sample in enumerate(samples):
        if part == "all" or place % 2 == (part == "odd"):
            yield sample
