"""Convert one network within an accuracy budget with another tool, in a process and perhaps an interpreter of its own.

``python -m tools.benchmarks.budget.peers TOOL NETWORK METRIC LIMIT INT8.onnx --data FOLDER``; what it took goes to stdout as JSON. The
interpreter needs that tool, and of this project's requirements all but PyTorch.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from converter.cli.command import Parser, exit_code, print_line
from converter.errors import ConverterError, UsageError
from converter.load.files import write_files
from converter.runtime.session import Feed
from tools.benchmarks.budget.judge import METRICS, Judge, exactness, judge_of, metric_of
from tools.benchmarks.budget.subjects import NETWORKS, subject_of
from tools.benchmarks.compare.peers import feed_reader

__all__ = ["PACKAGES", "PEERS", "Asked", "Made", "main", "nncf_controlled", "quark_mixed"]

_RANKED = 200
"""Images on which NNCF ranks its groups of quantizers at most."""

_TINY = 1e-9
"""A drop of nothing: Quark takes 0 for no threshold."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What a tool is given.

    Attributes:
        path: of the float model.
        feeds: that calibrate.
        judge: of the images to choose on.
        metric: one of :data:`tools.benchmarks.budget.judge.METRICS`.
        limit: the most that it may drop.
        most: quantized models that may be evaluated on all images.
    """

    path: Path
    feeds: Sequence[Feed]
    judge: Judge
    metric: str
    limit: float
    most: int


@dataclass(frozen=True, eq=False)
class Made:
    """A model and what it took.

    Attributes:
        model: quantized.
        evaluations: of quantized models on all images.
        rankings: of models that were run besides, to order what goes back to a higher precision.
    """

    model: onnx.ModelProto
    evaluations: int
    rankings: int


def nncf_controlled(asked: Asked) -> Made:
    """NNCF's quantization with accuracy control, with its preset for transformers."""
    tool = importlib.import_module("nncf")
    judge, everything = asked.judge, len(asked.judge.samples)
    evaluated: list[int] = []

    def validate(model: onnx.ModelProto, places: Iterable[int]) -> tuple[float, list[float]]:
        """The metric on some images; and of each how far the outputs are from float, by which NNCF picks those to rank on."""
        some = list(places)
        outputs = judge.answers(model, some)
        singles = [exactness([judge.floats[place]], [out]) for place, out in zip(some, outputs, strict=True)]
        evaluated.append(len(some))
        # of a single image, on which it only tries what the function returns, a task may have no score
        return (metric_of(judge, asked.metric, outputs, some) if len(some) > 1 else singles[0]), singles

    # fewer than all, so that what is ranked can be told from what is evaluated
    ranked_on = min(_RANKED, everything - 1)
    restorer = tool.AdvancedAccuracyRestorerParameters(
        max_num_iterations=asked.most - 1, ranking_subset_size=ranked_on, num_ranking_workers=1
    )
    model = tool.quantize_with_accuracy_control(
        onnx.load(asked.path),
        tool.Dataset(list(asked.feeds)),
        tool.Dataset(list(range(everything))),
        validation_fn=validate,
        max_drop=asked.limit,
        subset_size=len(asked.feeds),
        model_type=tool.ModelType.TRANSFORMER,
        advanced_accuracy_restorer_parameters=restorer,
    )
    # the first of all is float
    return Made(model, evaluated.count(everything) - 1, evaluated.count(ranked_on))


def quark_mixed(asked: Asked) -> Made:
    """AMD Quark's automatic mixed precision: int8, and layers go to int16 until the budget is held."""
    tool = importlib.import_module("quark.onnx")
    judge, places = asked.judge, range(len(asked.judge.samples))
    samples = [{judge.task.input: sample.value[None]} for sample in judge.samples]
    names = [output.name for output in onnx.load(asked.path, load_external_data=False).graph.output]
    ranking: list[bool] = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        ranked, result = folder / "ranked.json", folder / "result.onnx"

        def evaluate(outputs: Sequence[Sequence[Any]]) -> float:
            """The metric, of what a model says to all samples; those that calibrate come first."""
            found = [dict(zip(names, one, strict=True)) for one in outputs[len(asked.feeds) :]]
            return metric_of(judge, asked.metric, found, places)

        def distance(floats: Sequence[Sequence[Any]], quantized: Sequence[Sequence[Any]]) -> float:
            ranking.append(bool(ranking) and not ranked.exists())  # the first is the model before anything is ranked
            drop = evaluate(floats) - evaluate(quantized)
            # no more may be evaluated: what there is now is the answer
            return min(drop, _TINY) if ranking.count(False) >= asked.most else drop

        mixed = tool.AutoMixprecisionConfig(
            target_layer_config=tool.QLayerConfig(activation=tool.Int16Spec(), weight=tool.Int16Spec()),
            data_size=len(asked.feeds) + len(samples),
            metric_output_index=-1,
            metric_distance_fn=distance,
            metric_threshold=max(asked.limit, _TINY),
            metric_optimize_object="quality",
            sensitivity_cache_file=ranked,
        )
        spec = tool.QLayerConfig(activation=tool.Int8Spec(), weight=tool.Int8Spec())
        config = tool.QConfig(global_config=spec, algo_config=[tool.CLEConfig(), mixed], CalibDataSize=len(asked.feeds))
        with contextlib.chdir(folder):  # it leaves a table of what it did where it runs
            tool.ModelQuantizer(config).quantize_model(str(asked.path.resolve()), str(result), feed_reader([*asked.feeds, *samples]))
        return Made(onnx.load(result), ranking.count(False), ranking.count(True))


PEERS: Mapping[str, Callable[[Asked], Made]] = {"nncf": nncf_controlled, "quark": quark_mixed}
"""Other tools."""

PACKAGES = {"nncf": "nncf", "quark": "quark.onnx"}


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.benchmarks.budget.peers", description="Convert one network within a budget with another tool.")
    add = parser.add_argument
    add("tool", choices=tuple(PEERS))
    add("network", choices=NETWORKS)
    add("metric", choices=METRICS)
    add("limit", type=float)
    add("output", type=Path, metavar="INT8.onnx")
    add("--data", type=Path, required=True, metavar="FOLDER")
    add("--folder", type=Path, required=True, metavar="FOLDER", help="where the recogniser is")
    add("--samples", type=int, default=32, help="that calibrate")
    add("--most", type=int, default=12, help="quantized models to evaluate on all images")
    flags = parser.parse_args(arguments)
    try:
        importlib.import_module(PACKAGES[flags.tool])
    except ImportError as error:
        hint = "name an interpreter that has it with --nncf-python or --quark-python"
        raise UsageError(f"{flags.tool} cannot be imported: {error}", where=flags.tool, hint=hint) from None
    subject = subject_of(flags.network, flags.data, flags.folder)
    array, _ = subject.task.calibration(flags.data, 0)
    feeds = [{subject.task.input: array[place : place + 1]} for place in range(min(flags.samples, len(array)))]
    judge = judge_of(subject.task, flags.data, onnx.load(subject.path), "even", threads=1)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            made = PEERS[flags.tool](Asked(subject.path, feeds, judge, flags.metric, flags.limit, flags.most))
        except Exception as error:  # of any kind, as it is another tool's: its words are what the row says
            raise ConverterError(f"{type(error).__name__}: {error}".splitlines()[0][:200], where=flags.tool) from error
    write_files({flags.output: made.model.SerializeToString(deterministic=True)})
    print_line(json.dumps({"evaluations": made.evaluations, "rankings": made.rankings}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
