"""Measure one cell: convert, classify all test images, compare with float."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import onnx
import torch

from converter.errors import ConverterError
from converter.load.files import write_files
from converter.load.metadata import class_names
from converter.load.model import load
from converter.methods.names import MethodName
from converter.options import Options
from converter.pipeline import convert
from converter.runtime.latency import latency_ratio
from converter.verify.coverage_by_profile import coverage_of
from converter.verify.quality import sqnr
from models.evaluate import open_classifier, output_indices
from models.images import LabelledImages
from tools.benchmarks.compare.cells import FLOAT, Cell, Row
from tools.benchmarks.compare.peers import PEERS
from tools.benchmarks.compare.variants import Variant
from tools.calibration import calibration_feeds

__all__ = ["Bench", "measure", "measure_latency"]

_LATENCY_SECONDS = 1.5


@dataclass(frozen=True)
class Bench:
    """What all cells share.

    Attributes:
        sources: float models by name.
        images: prepared test images by model path, .npy.
        data: for the labels.
        calib: calibration images.
        samples: how many of them.
        target: of our own conversions.
        variants: how each method of the cells converts.
        folder: where converted models and the float scores are kept.
        placement: of our own conversions that are not in full.
    """

    sources: dict[str, Path]
    images: dict[Path, Path]
    data: LabelledImages
    calib: Path
    samples: int
    target: str
    variants: dict[str, Variant]
    folder: Path
    placement: str = Options.placement


def measure(bench: Bench, cell: Cell) -> Row:
    """Make and judge one model; whatever goes wrong becomes a row that says why, so that the other cells are measured."""
    torch.set_num_threads(1)
    bench.folder.mkdir(parents=True, exist_ok=True)  # it may not be there on another machine
    row = Row(cell.model, cell.method, cell.bits)
    try:
        return _measured(bench, row)
    except ConverterError as error:
        return replace(row, failure=error.what)
    except Exception as error:
        return replace(row, failure=f"unexpected {type(error).__name__}: {next(iter(str(error).splitlines()), '')}")


def measure_latency(bench: Bench, row: Row) -> Row:
    """The row with its latency, on one thread, in turns with float; as it is if the model is not there.

    To be called when nothing else is measured: a busy machine slows down one model more than the other.
    """
    source = bench.sources[row.model]
    path = _path(bench, row)
    if not path.exists():
        return row
    (feed,) = calibration_feeds(load(source), bench.calib, count=1, seed=0)
    ratio = latency_ratio(onnx.load(source), onnx.load(path), feed, threads=1, seconds=_LATENCY_SECONDS)
    return replace(row, latency=ratio.ratio)


def _path(bench: Bench, row: Row) -> Path:
    """Where the model of a row is."""
    return bench.folder / f"{bench.sources[row.model].stem}_{row.method.replace(' ', '_')}_{row.bits}.onnx"


def _measured(bench: Bench, row: Row) -> Row:
    source = bench.sources[row.model]
    if row.method == FLOAT:
        scores = _float_scores(bench, source)
        return replace(row, top1=_top1(bench, source, scores), agreement=100.0, megabytes=source.stat().st_size / 1e6)
    path = _path(bench, row)
    row = (_peer if bench.variants[row.method].method in PEERS else _own)(bench, row, source, path)
    scores, floats = _scores(bench, path, source, exact=True), _float_scores(bench, source)
    top1 = _top1(bench, source, scores)
    return replace(
        row,
        top1=top1,
        drop=_top1(bench, source, floats) - top1,
        sqnr_db=sqnr(floats, scores),
        agreement=100.0 * float((floats.argmax(1) == scores.argmax(1)).mean()),
        megabytes=path.stat().st_size / 1e6,
    )


def _own(bench: Bench, row: Row, source: Path, path: Path) -> Row:
    variant = bench.variants[row.method]
    options = Options(
        calib=bench.calib,
        samples=bench.samples,
        method=cast(MethodName, variant.method),
        bits=row.bits,
        target=bench.target,
        seed=variant.seed,
        full=variant.full,
        placement=bench.placement,
        threads=1,
        parts=variant.parts,
    )
    start = time.process_time()
    report = convert(source, path, options)
    seconds = time.process_time() - start
    assert report.verdict is not None
    return replace(row, coverage=100.0 * report.verdict.integer_coverage.coverage, seconds=seconds)


def _peer(bench: Bench, row: Row, source: Path, path: Path) -> Row:
    variant = bench.variants[row.method]
    start = time.process_time()
    feeds = calibration_feeds(load(source), bench.calib, count=bench.samples, seed=variant.seed)
    made = PEERS[variant.method](source, feeds)
    write_files({path: made.SerializeToString(deterministic=True)})
    seconds = time.process_time() - start
    return replace(row, seconds=seconds, coverage=coverage_of(made, feeds[0], {}).percent)


def _float_scores(bench: Bench, source: Path) -> npt.NDArray[np.float32]:
    """Scores of the float model on all test images, kept for the next cell."""
    path = bench.folder / f"{source.stem}_scores.npy"
    if path.exists():
        kept: npt.NDArray[np.float32] = np.load(path)
        return kept
    scores = _scores(bench, source, source, exact=False)
    part = path.with_suffix(f".{time.monotonic_ns()}.part.npy")
    np.save(part, scores)
    part.rename(path)
    return scores


def _scores(bench: Bench, path: Path, source: Path, *, exact: bool) -> npt.NDArray[np.float32]:
    classifier = open_classifier(path, exact=exact and _is_quantized(path), threads=1)
    images = np.load(bench.images[source], mmap_mode="r")
    rows = classifier.batch or 32
    return np.concatenate([classifier.logits(np.asarray(images[start : start + rows])) for start in range(0, len(images), rows)])


def _is_quantized(path: Path) -> bool:
    return any(n.op_type == "QuantizeLinear" for n in onnx.load(path, load_external_data=False).graph.node)


def _top1(bench: Bench, source: Path, scores: npt.NDArray[np.float32]) -> float:
    names = class_names(load(source).metadata)
    labels = output_indices(bench.data, scores.shape[1], names)[list(bench.data.labels)]
    return 100.0 * float((scores.argmax(1) == labels).mean())
