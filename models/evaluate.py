"""Top-1 accuracy of an ONNX classifier: ``python -m models.evaluate MODEL.onnx --data ZIP_OR_FOLDER``.

The model runs in ONNX Runtime on the CPU, float or quantized alike. Pictures are prepared as its metadata says
(``bridgequant.preprocess``) or as ``--preprocess`` does.

On x86 processors without VNNI, ONNX Runtime's fast 8-bit kernels add pairs of products in 16 bits and saturate, so that
an int8 model scores lower there than on ARM or newer x86. ``--exact`` picks kernels that do not.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from converter.budget.labels import outputs_of_classes
from converter.calibration.preprocess import (
    PRESETS,
    Preprocess,
    apply_preprocess,
    parse_preprocess,
    picture_codes,
    spec_text,
    stated_preprocess,
)
from converter.cli.command import Parser, exit_code, print_line
from converter.distribute.workers import Workers, add_worker_flags, as_done, workers_of
from converter.errors import CalibrationError, ModelError, UsageError
from converter.load.files import write_files
from converter.load.metadata import class_names
from converter.load.model import load
from converter.runtime.session import run_session
from models.images import LabelledImages, find_images
from models.unsigned_codes import unsigned_codes

__all__ = [
    "Classifier",
    "Score",
    "answers_of",
    "exact_setting",
    "main",
    "open_classifier",
    "output_indices",
    "score",
]

_BATCH = 32
_SHARD = 512
"""Images of a piece of work, at least."""

_INPUTS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, zipfile.BadZipFile, zlib.error, Image.DecompressionBombError)
"""What Pillow and zipfile raise for damaged files."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A model that is ready to run.

    Attributes:
        session: ONNX Runtime's.
        batch: images it takes at a time; None for any number.
        height: rows of its images.
        width: columns of its images.
        metadata: the model's own entries.
    """

    session: onnxruntime.InferenceSession
    batch: int | None
    height: int
    width: int
    metadata: dict[str, str]

    @property
    def takes_pixels(self) -> bool:
        """Whether images are uint8 pixels, which the model normalises itself."""
        return bool(_INPUTS[self.session.get_inputs()[0].type] == np.uint8)

    def logits(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Scores [N, classes] of prepared images [N, 3, H, W], no more than the model takes at a time."""
        argument = self.session.get_inputs()[0]
        missing = (self.batch or len(images)) - len(images)  # a model with a fixed batch takes no short last one
        full = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
        outputs = run_session(self.session, {argument.name: full.astype(_INPUTS[argument.type])})
        scores: npt.NDArray[np.float32] = next(iter(outputs.values()))
        return scores.reshape(len(full), -1)[: len(images)]


@dataclass(frozen=True)
class Score:
    """The result of an evaluation.

    Attributes:
        images: how many were classified.
        correct: how many of them rightly.
        seconds: time for decoding, preparing and classifying.
    """

    images: int
    correct: int
    seconds: float

    @property
    def top1(self) -> float:
        """Share of correct answers, in percent."""
        return 100.0 * self.correct / self.images


def exact_setting(model: onnx.ModelProto) -> str:
    """Name the session setting that keeps this model's integer kernels from saturating on x86.

    With signed activations ONNX Runtime is told to keep the signed kernels, which it otherwise replaces by unsigned
    ones. With unsigned activations it is told to make the weights unsigned. Both at once is refused by version 1.32.
    """
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    zero_points = [node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2]
    signed = bool(zero_points) and all(types.get(name) == onnx.TensorProto.INT8 for name in zero_points)
    return "session.qdqisint8allowed" if signed else "session.x64quantprecision"


def open_classifier(path: Path, *, exact: bool = False, threads: int = 0, size: int | None = None) -> Classifier:
    """Load a model whose one input takes pictures.

    Args:
        exact: use kernels that do not saturate.
        threads: of one operator; 0 for as many as there are cores.
        size: height and width where the model leaves them open, in pixels.

    Raises:
        UsageError: no such file, or the model leaves the size open and none is given.
        ModelError: ONNX Runtime cannot load it, or it takes something else than pictures.
    """
    if not path.is_file():
        raise UsageError("there is no such model", where=str(path), hint="check the spelling")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; what it warns of concerns the writer of the model
    try:
        session = _exact_session(path, options) if exact else _session(path, options)
    except Exception as error:  # ONNX Runtime's own exceptions share no base below this one
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"the model cannot be loaded: {reason}", where=str(path), hint="check that it is a valid ONNX file") from error
    inputs = session.get_inputs()
    shape = inputs[0].shape if inputs else []
    if len(inputs) != 1 or inputs[0].type not in _INPUTS or len(shape) != 4 or shape[1] != 3:
        listing = "; ".join(f"{argument.name} {argument.type} {argument.shape}" for argument in inputs)
        raise ModelError(f"the inputs are not one float or uint8 [N, 3, H, W]: {listing}", where=str(path), hint="give an image classifier")
    batch, height, width = (extent if isinstance(extent, int) else None for extent in (shape[0], shape[2], shape[3]))
    height, width = height or size, width or size
    if height is None or width is None:
        raise UsageError("the model leaves height and width open", where=str(path), hint="give --size")
    return Classifier(session, batch, height, width, dict(session.get_modelmeta().custom_metadata_map))


def _exact_session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    model = onnx.load(path)
    unsigned = unsigned_codes(model)
    if unsigned is not None:
        return _session(unsigned.SerializeToString(), options)
    options.add_session_config_entry(exact_setting(model), "1")
    return _session(path, options)


def _session(model: Path | bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def output_indices(data: LabelledImages, outputs: int, class_names: tuple[str, ...] = ()) -> npt.NDArray[np.int64]:
    """Find the output that stands for each class of the data.

    1. The model's class names are known and the data's are among them: by name.
    2. The data's classes are numbers: the number is the output.
    3. There are as many classes as outputs: in sorted order, of numbers by value.
    4. The data's classes are WordNet numbers and there are 1000 outputs: in the order of ImageNet-1k.

    Args:
        outputs: how many the model has.
        class_names: of the outputs, in order; empty if unknown.

    Returns:
        One output index for each of ``data.classes``, int64.

    Raises:
        UsageError: none of the cases applies.
    """
    names = data.classes
    matched = outputs_of_classes(names, outputs, class_names)
    if matched is not None:
        return np.array([matched[name] for name in names], np.int64)
    if outputs == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in names):
        from timm.data import ImageNetInfo

        order: list[str] = ImageNetInfo("imagenet-1k").label_names()
        if set(names) <= set(order):
            return np.array([order.index(name) for name in names], np.int64)
    what = f"the data has {len(names)} classes ({', '.join(names[:3])}, ...) and the model {outputs} outputs; they cannot be matched"
    raise UsageError(what, where=str(data.source), hint="give data of the classes that the model was trained for")


def score(
    classifier: Classifier, data: LabelledImages, preprocess: Preprocess, *, batch: int, advance: Callable[[int], None] = lambda done: None
) -> Score:
    """Classify every image.

    Args:
        preprocess: what the model expects.
        batch: images at a time, where the model leaves it open.
        advance: called with the number of images done since the last call.

    Raises:
        UsageError: data and model have different classes.
        CalibrationError: an image cannot be read.
    """
    start, correct, done = time.monotonic(), 0, 0
    indices: npt.NDArray[np.int64] | None = None
    for answers in answers_of(classifier, data, preprocess, batch=batch):
        if indices is None:
            indices = output_indices(data, answers.shape[1], class_names(classifier.metadata))
        labels = indices[list(data.labels[done : done + len(answers)])]
        correct += int((answers.argmax(axis=1) == labels).sum())
        done += len(answers)
        advance(len(answers))
    return Score(done, correct, time.monotonic() - start)


def answers_of(classifier: Classifier, data: LabelledImages, preprocess: Preprocess, *, batch: int) -> Iterator[npt.NDArray[np.float32]]:
    """Scores of all images, some at a time, float32 [N, classes].

    Raises:
        CalibrationError: an image cannot be read.
    """
    yield from map(classifier.logits, _prepared(data, preprocess, classifier, classifier.batch or batch))


def _prepared(data: LabelledImages, preprocess: Preprocess, classifier: Classifier, rows: int) -> Iterator[npt.NDArray[Any]]:
    """Prepare the images in batches of at most ``rows``, float32 or uint8 [N, 3, H, W]."""
    done = 0
    images = data.images()
    while done < len(data):
        batch: list[npt.NDArray[Any]] = []
        try:
            for image in islice(images, rows):
                batch.append(_image(image, classifier, preprocess))  # noqa: PERF401  counted below
        except _UNREADABLE as error:
            where = f"{data.source}: {data.entries[done + len(batch)]}"
            raise CalibrationError(f"an image cannot be read: {error}", where=where, hint="repair or remove it") from error
        yield np.stack(batch)
        done += len(batch)


def _image(image: Image.Image, classifier: Classifier, preprocess: Preprocess) -> npt.NDArray[Any]:
    if classifier.takes_pixels:
        return picture_codes(image, classifier.height, classifier.width, 3, preprocess.resize)
    return apply_preprocess(image, classifier.height, classifier.width, 3, preprocess)


def _parse(arguments: Sequence[str] | None, prog: str) -> argparse.Namespace:
    parser = Parser(prog=prog, description="Measure the top-1 accuracy of an ONNX classifier.")
    parser.add_argument("model", metavar="MODEL.onnx", type=Path)
    parser.add_argument("--data", type=Path, required=True, metavar="ZIP_OR_FOLDER", help="CLASS/NAME.jpg, or IIII_wnid_name.jpg")
    parser.add_argument("--limit", type=int, metavar="N", help="evaluate a random choice of N images, always the same one")
    parser.add_argument("--batch", type=int, default=_BATCH, metavar="N", help=f"images at a time, where the model allows it ({_BATCH})")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="0: as many as there are cores; 1 in each of several processes")
    parser.add_argument("--size", type=int, metavar="PX", help="height and width, where the model leaves them open")
    parser.add_argument("--preprocess", metavar="SPEC", help="instead of the model's own, such as 'imagenet;resize=crop'")
    parser.add_argument("--exact", action="store_true", help="integer kernels that do not saturate on x86 without VNNI")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    add_worker_flags(parser, jobs=0, pieces="shards of the images")
    options = parser.parse_args(arguments)
    parser.check_least(options, limit=1, batch=1, threads=0, size=1)
    return options


@dataclass(frozen=True)
class _Evaluation:
    """What all shards of an evaluation share; attributes are those of :func:`open_classifier` and :func:`score`."""

    model: Path
    data: LabelledImages
    preprocess: Preprocess
    batch: int
    exact: bool
    threads: int
    size: int | None


def _shard(at: _Evaluation, places: tuple[int, int]) -> Score:
    classifier = open_classifier(at.model, exact=at.exact, threads=at.threads, size=at.size)
    return score(classifier, at.data.part(*places), at.preprocess, batch=at.batch)


def _score_in_shards(at: _Evaluation, workers: Workers, rows: int, advance: Callable[[int], None]) -> Score:
    """The score of all images, a shard in each piece of work; batches are those of a single shard, of ``rows`` images each."""
    start, images, correct = time.monotonic(), 0, 0
    step = -(-_SHARD // rows) * rows
    shards = [(begin, min(begin + step, len(at.data))) for begin in range(0, len(at.data), step)]
    source = at.data.source
    pictures = [source / entry for entry in at.data.entries] if source.is_dir() else [source]
    files = [at.model, *load(at.model).external, *pictures] if workers.ray else ()
    for _, found in as_done(_shard, at, shards, workers, files=files, name=lambda places: f"images {places[0]} to {places[1] - 1}"):
        images, correct = images + found.images, correct + found.correct
        advance(found.images)
    return Score(images, correct, time.monotonic() - start)


def _evaluate(options: argparse.Namespace) -> None:
    workers = workers_of(options)
    classifier = open_classifier(options.model, exact=options.exact, threads=options.threads, size=options.size)
    preprocess = parse_preprocess(options.preprocess) if options.preprocess else stated_preprocess(classifier.metadata)
    if preprocess is None and classifier.takes_pixels:
        preprocess = PRESETS["unit"]  # of which only the resize policy counts
    if preprocess is None:
        hint = "give --preprocess, such as 'imagenet;resize=crop'"
        raise UsageError("the model does not say how its pictures are prepared", where=str(options.model), hint=hint)
    try:
        data = find_images(options.data)
    except (ValueError, OSError) as error:
        raise UsageError(str(error), where="--data", hint="give a folder or zip of CLASS/NAME.jpg or of IIII_wnid_name.jpg") from error
    if options.limit:
        data = data.take(options.limit)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(options.model.name, total=len(data))

        def advance(done: int) -> None:
            progress.advance(task, done)

        if workers.alone:
            result = score(classifier, data, preprocess, batch=options.batch, advance=advance)
        else:
            data = replace(data, source=data.source.resolve())  # a worker may stand in another folder
            at = _Evaluation(options.model.resolve(), data, preprocess, options.batch, options.exact, options.threads or 1, options.size)
            result = _score_in_shards(at, workers, classifier.batch or options.batch, advance)
    report = {
        "model": options.model.name,
        "data": options.data.name,
        "top1": result.top1,
        **asdict(result),
        "preprocess": spec_text(preprocess),
        "exact": options.exact,
        "machine": platform.machine(),
        "onnxruntime": onnxruntime.__version__,
    }
    if options.json:
        write_files({options.json: (json.dumps(report, indent=2) + "\n").encode()})
    kernels = ", exact kernels" if options.exact else ""
    print_line(
        f"{options.model.name}: top-1 {result.top1:.2f} % ({result.correct} of {result.images} in {options.data.name}, "
        f"{report['preprocess']}{kernels}), {result.seconds:.1f} s"
    )


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m models.evaluate") -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _evaluate(_parse(arguments, prog)))


if __name__ == "__main__":
    raise SystemExit(main())
