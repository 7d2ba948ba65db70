"""Make one int8 model, in a process of its own: ``python -m tools.benchmarks.real.make FLOAT.onnx INT8.onnx CALIB.npz METHOD``.

What a reader wants to know of it beside its answers goes to stdout as JSON.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx

from converter.cli.command import Parser, exit_code, print_line
from converter.load.files import write_files
from converter.methods.names import METHOD_NAMES, MethodName
from converter.methods.search_parts import SearchParts
from converter.options import Options
from converter.pipeline import convert
from converter.runtime.session import Feed
from converter.targets import find_target
from converter.verify.coverage_by_profile import coverage_of
from tools.benchmarks.compare.peers import nncf, ort_static

__all__ = ["METHODS", "PARTS", "PEERS", "Made", "main"]

PEERS: Mapping[str, Callable[[Path, Sequence[Feed]], onnx.ModelProto]] = {
    "ort-s8s8": ort_static,
    "ort-u8s8": partial(ort_static, unsigned=True),
    "ort-u8s8-reduced": partial(ort_static, unsigned=True, reduce_range=True),
    "nncf": nncf,
}
"""Other tools, which know 8 bits only."""

METHODS = (*METHOD_NAMES, *PEERS)
PARTS = tuple(field.name for field in fields(SearchParts))


@dataclass(frozen=True)
class Made:
    """What is known of a model that was made.

    Attributes:
        coverage: percent of multiply-accumulates that run in integer.
        predicted: millions of ARM64 instructions by the target's prices; None of another tool's model.
        predicted_float: the same of the float model.
        seconds: of processor time.
    """

    coverage: float
    predicted: float | None
    predicted_float: float | None
    seconds: float


def _own(flags: Any) -> Made:
    options = Options(
        calib=flags.calib,
        samples=flags.samples,
        method=cast(MethodName, flags.method),
        bits=flags.bits,
        placement=flags.placement,
        threads=1,
        parts=SearchParts(**dict.fromkeys(flags.without, False)),
    )
    begun = time.process_time()
    report = convert(flags.source, flags.output, options)
    assert report.verdict is not None
    coverage = 100.0 * report.verdict.integer_coverage.coverage
    return Made(coverage, report.predicted / 1e6, report.predicted_float / 1e6, time.process_time() - begun)


def _peer(flags: Any) -> Made:
    begun = time.process_time()
    arrays = np.load(flags.calib)
    feeds = [{name: arrays[name][place : place + 1] for name in arrays.files} for place in range(len(arrays[arrays.files[0]]))]
    made = PEERS[flags.method](flags.source, feeds[: flags.samples])
    seconds = time.process_time() - begun
    settings = find_target(Options.target).session_settings.get(platform.machine(), {})
    write_files({flags.output: made.SerializeToString(deterministic=True)})
    return Made(coverage_of(made, feeds[0], settings).percent, None, None, seconds)


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.benchmarks.real.make", description="Make one int8 model.")
    add = parser.add_argument
    add("source", type=Path, metavar="FLOAT.onnx")
    add("output", type=Path, metavar="INT8.onnx")
    add("calib", type=Path, metavar="CALIB.npz")
    add("method", choices=METHODS)
    add("--bits", default="W8A8")
    add("--placement", default=Options.placement)
    add("--samples", type=int, default=Options.samples)
    add("--without", nargs="*", default=(), choices=PARTS, metavar="PART", help=f"of the search: {', '.join(PARTS)}")
    flags = parser.parse_args(arguments)
    print_line(json.dumps(asdict(_peer(flags) if flags.method in PEERS else _own(flags))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
