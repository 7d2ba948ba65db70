"""A float model and its int8 model in ONNX Runtime Web, set beside Python: ``python -m tools.web.compare FLOAT.onnx INT8.onnx``.

In Node, in a headless Chromium, or in both: whether each model answers as it does in Python, and how much faster the int8 model is,
in turns with the float model. One thread, WebAssembly compiled as well as can be.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from converter.cli.command import Parser, exit_code
from converter.errors import BoundMissedError, UsageError
from converter.quantization.output_codes import output_grids, with_numbers
from converter.runtime.latency import LatencyRatio, ratio_of_times
from converter.runtime.session import Feed, open_session, run_session
from runtime_tests.model_pair import ModelPair, open_model_pair
from tools.web.chromium import run_in_chromium
from tools.web.jobs import Job, read_outputs
from tools.web.node import run_in_node
from tools.web.operators import OperatorTimes, operator_times
from tools.web.package import FOLDER_VARIABLE, Package, find_package

__all__ = ["ENGINES", "Agreement", "Found", "agreement", "compared", "main"]

ENGINES: Mapping[str, Callable[[Job, Package], object]] = {"node": run_in_node, "chromium": run_in_chromium}

Outputs = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Agreement:
    """How a model's outputs compare with those in Python.

    Attributes:
        samples: how many were compared.
        same: how many of them have the same answers: the index of the largest number along the last axis, everywhere.
        difference: the largest, as a share of the largest number of its output.
    """

    samples: int
    same: int
    difference: float


@dataclass(frozen=True)
class Found:
    """What was found in one place.

    Attributes:
        engine: the place.
        floats: of the float model.
        integers: of the int8 model.
        latency: of both, in turns.
        quickest: float's quickest run over int8's, which other work on the machine disturbs least.
    """

    engine: str
    floats: Agreement
    integers: Agreement
    latency: LatencyRatio
    quickest: float


def agreement(wanted: Sequence[Outputs], got: Sequence[Outputs]) -> Agreement:
    """Compare outputs, a dict by name for each sample."""
    same, difference = 0, 0.0
    for one, other in zip(wanted, got, strict=True):
        same += all(np.array_equal(_answers(one[name]), _answers(other[name])) for name in one)
        difference = max(difference, *(_difference(one[name], other[name]) for name in one))
    return Agreement(len(wanted), same, difference)


def _answers(output: npt.NDArray[Any]) -> npt.NDArray[Any]:
    scores = np.issubdtype(output.dtype, np.floating) and output.ndim > 0 and output.shape[-1] > 1
    return np.asarray(output.argmax(-1)) if scores else output.round() if np.issubdtype(output.dtype, np.floating) else output


def _difference(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    if one.shape != other.shape:
        return math.inf
    largest = float(np.abs(one.astype(float)).max(initial=0.0)) or 1.0
    return float(np.abs(one.astype(float) - other.astype(float)).max(initial=0.0)) / largest


def compared(pair: ModelPair, engine: str, package: Package, *, turns: int) -> Found:
    """Run both models in one place, and in Python.

    Raises:
        UsageError: the place is not there, or an input has a type that cannot be given to it.
        ConverterError: the runtime fails.
    """
    models = (pair.floats.model, pair.model)
    with tempfile.TemporaryDirectory(prefix="web-") as folder:
        job = Job(Path(folder))
        names = [job.model(model) for model in models]
        feeds = [job.feed(feed) for feed in pair.feeds]
        job.latencies(names, feeds[0], warm=max(turns // 4, 3), turns=turns)
        for name in names:
            job.outputs(name, feeds)
        ENGINES[engine](job, package)
        times, *results = job.results()
        grids = [output_grids({entry.key: entry.value for entry in model.metadata_props}) for model in models]
        in_web = [[with_numbers(outputs, g) for outputs in read_outputs(r, job.folder)] for r, g in zip(results, grids, strict=True)]
    in_python = [_outputs(model, pair.feeds, settings) for model, settings in zip(models, ({}, pair.settings), strict=True)]
    floats, integers = (agreement(one, other) for one, other in zip(in_python, in_web, strict=True))
    return Found(engine, floats, integers, ratio_of_times(*times), min(times[0]) / min(times[1]))


def _outputs(model: onnx.ModelProto, feeds: Sequence[Feed], settings: Mapping[str, str]) -> list[Outputs]:
    session = open_session(model, threads=1, settings=settings)
    return [run_session(session, feed) for feed in feeds]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.web.compare", description="Two models in ONNX Runtime Web, set beside Python.")
    add = parser.add_argument
    add("float", type=Path, metavar="FLOAT.onnx")
    add("int8", type=Path, metavar="INT8.onnx")
    add("--data", type=Path, metavar="PATH", help="images or arrays to run on, as --calib takes them (default: synthetic)")
    add("--samples", type=int, default=200, metavar="N", help="how many to compare on (default 200)")
    add("--turns", type=int, default=60, metavar="N", help="how often both models run in turns (default 60)")
    add("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES), help="where (default: both)")
    add("--operators", action="store_true", help="also the time of each type of operator, by the runtime's profile in Node")
    add("--at-least", type=float, metavar="RATIO", help="exit 6 if float's time over int8's is lower anywhere, such as 1.2")
    add("--web", type=Path, metavar="DIR", help=f"folder of onnxruntime-web (default {FOLDER_VARIABLE})")
    flags = parser.parse_args(arguments)
    parser.check_least(flags, samples=1, turns=5)
    if flags.at_least is not None and not 0.0 < flags.at_least < math.inf:
        raise UsageError(f"{flags.at_least:g} is no ratio of times", where="--at-least", hint="give one such as 1.2")
    package = find_package(flags.web)
    pair = open_model_pair(flags.float, flags.int8, data=flags.data, count=flags.samples)
    found = [compared(pair, engine, package, turns=flags.turns) for engine in dict.fromkeys(flags.engines)]
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    _print(console, pair, package, found)
    if flags.operators:
        _print_operators(console, operator_times((pair.floats.model, pair.model), pair.feeds[0], package, runs=flags.turns))
    _enforce(found, flags.at_least)


def _enforce(found: Sequence[Found], at_least: float | None) -> None:
    slow = [each for each in found if at_least is not None and each.latency.ratio < at_least]
    if slow:
        what = f"in {slow[0].engine} float's time over int8's is {slow[0].latency.ratio:.2f}, {at_least:g} were asked for"
        raise BoundMissedError(what, where="--at-least", hint="--operators shows where the time goes")


def _print(console: Console, pair: ModelPair, package: Package, found: Sequence[Found]) -> None:
    title = f"{pair.path.name} beside {pair.floats.path.name}, ONNX Runtime Web {package.version}, one thread; {pair.samples}"
    table = Table(title=escape(title), title_justify="left")
    for heading in ("where", "model", "answers as in Python", "largest difference", "float time / its time", "quickest"):
        table.add_column(heading, justify="left" if heading in ("where", "model") else "right")
    for each in found:
        latency = f"{each.latency.ratio:.2f} ({each.latency.low:.2f} to {each.latency.high:.2f})"
        rows = (("float", each.floats, "1", "1"), ("int8", each.integers, latency, f"{each.quickest:.2f}"))
        for model, agrees, *ratios in rows:
            table.add_row(each.engine, model, f"{agrees.same} of {agrees.samples}", f"{agrees.difference:.1e}", *ratios)
    console.print(table)


def _print_operators(console: Console, times: Sequence[OperatorTimes]) -> None:
    table = Table(title="milliseconds in operators of each type, profile in Node", title_justify="left")
    for heading in ("operator", "float", "nodes", "int8", "nodes"):
        table.add_column(heading, justify="left" if heading == "operator" else "right")
    for each in times:
        table.add_row(each.op_type, f"{each.floats:.2f}", str(each.float_nodes), f"{each.integers:.2f}", str(each.integer_nodes))
    table.add_section()
    table.add_row("all", f"{sum(t.floats for t in times):.2f}", "", f"{sum(t.integers for t in times):.2f}", "")
    console.print(table)


if __name__ == "__main__":
    raise SystemExit(main())
