"""Make one int8 model of ours, in a process of its own: ``python -m tools.benchmarks.real.make FLOAT.onnx INT8.onnx CALIB.npz METHOD``.

What a reader wants to know of it beside its answers goes to stdout as JSON.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from converter.cli.command import Parser, exit_code, print_line
from converter.methods.names import METHOD_NAMES, MethodName
from converter.methods.search_parts import SearchParts
from converter.options import Options
from converter.pipeline import convert

__all__ = ["PARTS", "Made", "main"]

PARTS = tuple(field.name for field in fields(SearchParts))


@dataclass(frozen=True)
class Made:
    """What is known of a model that was made.

    Attributes:
        coverage: percent of multiply-accumulates that run in integer.
        predicted: millions of ARM64 instructions by the target's prices.
        predicted_float: the same of the float model.
        seconds: of processor time.
    """

    coverage: float
    predicted: float
    predicted_float: float
    seconds: float


def _made(flags: Any) -> Made:
    usual = SearchParts()
    options = Options(
        calib=flags.calib,
        samples=flags.samples,
        method=cast(MethodName, flags.method),
        bits=flags.bits,
        placement=flags.placement,
        threads=1,
        parts=replace(usual, **{part: not getattr(usual, part) for part in flags.without}),
    )
    begun = time.process_time()
    report = convert(flags.source, flags.output, options)
    assert report.verdict is not None
    coverage = 100.0 * report.verdict.integer_coverage.coverage
    return Made(coverage, report.predicted / 1e6, report.predicted_float / 1e6, time.process_time() - begun)


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.benchmarks.real.make", description="Make one int8 model.")
    add = parser.add_argument
    add("source", type=Path, metavar="FLOAT.onnx")
    add("output", type=Path, metavar="INT8.onnx")
    add("calib", type=Path, metavar="CALIB.npz")
    add("method", choices=METHOD_NAMES)
    add("--bits", default="W8A8")
    add("--placement", default=Options.placement)
    add("--samples", type=int, default=Options.samples)
    parts = f"of the search, to be switched off, or on if they usually are off: {', '.join(PARTS)}"
    add("--without", nargs="*", default=(), choices=PARTS, metavar="PART", help=parts)
    print_line(json.dumps(asdict(_made(parser.parse_args(arguments)))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
