"""The stock tool on a float model, and both int8 models on the same held-aside images, as JSON on stdout.

``python -m tools.benchmarks.zoo.judge FLOAT.onnx INT8.onnx [--calib PATH] [--samples N]``
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from converter.calibration.input_shapes import calibration_shapes
from converter.calibration.observer import collect_statistics
from converter.calibration.preprocess import parse_preprocess
from converter.calibration.samples import load_samples
from converter.canonicalise import canonicalise
from converter.cli.command import Parser, exit_code, print_line, unexpected
from converter.load.metadata import PREPROCESS
from converter.load.model import load
from converter.options import Options
from converter.runtime.session import Feed, open_session, run_session
from converter.sensitivity.bridge_blocks import find_structure
from converter.targets import find_target
from converter.verify.parity import selected_rows
from converter.verify.quality import measure
from converter.verify.row_matching import match_rows
from tools.benchmarks.compare.peers import ort_static
from tools.chaos import moved_db

__all__ = ["Judgement", "judge", "main"]


@dataclass(frozen=True)
class Judgement:
    """What can be said of a conversion from outside.

    Attributes:
        sqnr_db: lowest of the outputs, int8 against float on the held-aside samples; None without an int8 model.
        moved_db: least SQNR of the int8 model against itself when one code of its input moves; None without one.
        stock_db: the same as ``sqnr_db`` of what ONNX Runtime's own static quantization made; None if that failed.
        stock_failure: why.
        blocks: bridge blocks that were found.
        layers: layers that were found.
        layers_in_blocks: those of them that belong to a block.
    """

    sqnr_db: float | None
    moved_db: float | None
    stock_db: float | None
    stock_failure: str
    blocks: int
    layers: int
    layers_in_blocks: int


def judge(source: Path, converted: Path, calib: Path | None, samples: int) -> Judgement:
    """Run the stock tool, and compare; the samples are those that a conversion with the same arguments takes.

    Args:
        source: float model.
        converted: int8 model, which may be missing.
        calib: as of a conversion.
        samples: the same.

    Raises:
        ConverterError: the float model or the samples cannot be used.
    """
    loaded = load(source)
    specs, _ = calibration_shapes(loaded, {}, calib, 0)
    given = loaded.metadata.get(PREPROCESS)
    taken = load_samples(calib, specs, count=samples, preprocess=None if given is None else parse_preprocess(given), seed=0)
    model = canonicalise(loaded.model, taken.calibration[:1]).model
    seen = collect_statistics(model, taken.calibration[:1])
    structure = find_structure(model, {name: stats.shape for name, stats in seen.tensors.items()})
    rows = selected_rows(model, taken.calibration[0])
    settings = find_target(Options.target).session_settings.get(platform.machine(), {})
    sqnr_db = _lowest(loaded.model, onnx.load(converted), taken.held_aside, rows, settings) if converted.exists() else None
    moved = moved_db(converted, taken.held_aside[0]) if converted.exists() else None
    stock_db, failure = None, ""
    try:
        stock_db = _lowest(loaded.model, ort_static(source, taken.calibration), taken.held_aside, rows, settings)
    except Exception as error:  # whatever another tool raises is its result here
        failure = unexpected(error)
    inside = sum(layer.block is not None for layer in structure.layers)
    return Judgement(sqnr_db, moved, stock_db, failure, len(structure.blocks), len(structure.layers), inside)


def _lowest(
    source: onnx.ModelProto, other: onnx.ModelProto, feeds: Sequence[Feed], rows: Mapping[str, int], settings: Mapping[str, str]
) -> float | None:
    one, two = open_session(source), open_session(other, settings=settings)
    pairs = [match_rows(run_session(one, feed), run_session(two, feed), rows) for feed in feeds]
    found = (quality.sqnr_db for quality in measure(pairs, rows, {}, {}))
    return min((db for db in found if db is not None), default=None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""

    def run() -> None:
        parser = Parser(prog="python -m tools.benchmarks.zoo.judge", description="Compare an int8 model and the stock tool's.")
        parser.add_argument("source", type=Path, metavar="FLOAT.onnx")
        parser.add_argument("converted", type=Path, metavar="INT8.onnx")
        parser.add_argument("--calib", type=Path)
        parser.add_argument("--samples", type=int, default=Options.samples)
        flags = parser.parse_args(arguments)
        print_line(json.dumps(asdict(judge(flags.source, flags.converted, flags.calib, flags.samples))))

    return exit_code(run)


if __name__ == "__main__":
    raise SystemExit(main())
