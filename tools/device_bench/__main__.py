"""A float model and what was converted from it on a phone or board: ``python -m tools.device_bench FLOAT.onnx INT8.onnx --ssh HOST``."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from converter.calibration.input_shapes import parse_input_shapes
from converter.cli.command import Parser, exit_code, print_line
from converter.cli.report_tables import render
from converter.errors import BoundMissedError, UsageError, VerificationError
from converter.graph.protos import tensors_of
from converter.load.external_data import load_external_data
from converter.load.files import check_outputs, write_files
from converter.plan.records import Plan
from converter.planning.replay import read_plan
from converter.runtime.latency import ratio_of_times
from converter.verify.parity import parity_is_broken
from runtime_tests.emulation.inputs import read_model
from runtime_tests.model_pair import ModelPair, open_model_pair, session_settings, stacked
from runtime_tests.parity import check_plan_is_of
from tools.device_bench.answers import Answers, beside, beside_float, beside_plan
from tools.device_bench.bench import Found, Model, Settings, measure
from tools.device_bench.flags import add_device_flags, python_of, tell, transport_of
from tools.device_bench.native import Native, check_native
from tools.device_bench.report import board_row, report_json, report_table

__all__ = ["main"]

_WIDTH = 140


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code: 5 if the device does not compute what a plan says, 6 if it is too slow."""
    return exit_code(lambda: _run(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.device_bench", description="A float and an int8 model on a phone or board, in turns.")
    add = parser.add_argument
    add("floats", type=Path, metavar="FLOAT.onnx")
    add("int8", type=Path, nargs="+", metavar="INT8.onnx", help="what was converted from it; several run in turns, too")
    add_device_flags(parser)
    add("--library", type=Path, metavar="FILE", help="ONNX Runtime's own library, for a device without Python; with --runner")
    add("--runner", type=Path, metavar="FILE", help="what tools/device_bench/native.c was built to, for the device")
    add("--threads", type=int, default=1, metavar="N", help="of each session (default 1)")
    add("--cores", metavar="LIST", help="numbers of cores to stay on, such as 4,5, or none (default: the fastest, one for each thread)")
    add("--warm", type=int, default=5, metavar="N", help="runs of each model before any is timed (default 5)")
    add("--seconds", type=float, default=10.0, metavar="S", help="of turns (default 10)")
    add("--data", type=Path, metavar="PATH", help="images or arrays, as --calib takes them (default: synthetic)")
    add("--samples", type=int, default=8, metavar="N", help="to compare outputs on (default 8); the first one is timed")
    add("--preprocess", metavar="SPEC", help="of pictures, instead of the model's own")
    add("--input-shape", action="append", default=[], metavar="NAME:DIMS", help="sizes of open dimensions, x:1,3,48,320")
    add("--target", metavar="NAME", help="machine class of the int8 models (default: what the files say)")
    add(
        "--plan-in",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="plans of the int8 models, in their order, to compare with",
    )
    add("--at-least", type=float, metavar="RATIO", help="exit 6 if float's time over that of an int8 model is lower, such as 1.5")
    add("--json", type=Path, metavar="FILE", help="everything as JSON, outputs and the time of each run included")
    options = parser.parse_args(arguments)
    parser.check_least(options, threads=1, warm=0, seconds=0, samples=1)
    if options.plan_in and len(options.plan_in) != len(options.int8):
        parser.error(f"{len(options.int8)} int8 models and {len(options.plan_in)} plans: give one for each, or none")
    return options


def _run(options: argparse.Namespace) -> None:
    inputs = {"FLOAT.onnx": options.floats, **{f"INT8.onnx {path}": path for path in options.int8}}
    inputs |= {f"--plan-in {path}": path for path in options.plan_in}
    check_outputs({"--json": options.json} if options.json is not None else {}, inputs)
    device = transport_of(options)
    settings = Settings(python_of(options), _native(options), options.threads, _cores(options.cores), options.warm, options.seconds)
    pairs = [_pair(options, path) for path in options.int8]
    plans = [read_plan(path) for path in options.plan_in]
    for plan, pair, path in zip(plans, pairs, options.plan_in, strict=False):
        check_plan_is_of(plan, pair, path)
    models = [Model(options.floats, pairs[0].floats.external), *(_model(options, pair) for pair in pairs)]
    found = measure(device, models, stacked(pairs[0].feeds), settings, tell)
    answers = _answers(found, pairs, plans, options.plan_in)
    if options.json is not None:
        write_files({options.json: report_json(found, settings, models, answers).encode()})
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((_WIDTH, 24)).columns if terminal else _WIDTH
    print_line(render(report_table(found, models, answers), width, terminal=terminal).rstrip("\n"))
    print_line(f"row for docs/devices.md: {board_row(found, models)}")
    _judge(found, models, answers, options.at_least)


def _native(options: argparse.Namespace) -> Native | None:
    if options.library is None and options.runner is None:
        return None
    if options.library is None or options.runner is None:
        raise UsageError("--library and --runner go together", where="--library, --runner", hint="give both, or neither")
    native = Native(options.library, options.runner)
    check_native(native)
    return native


def _cores(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if text == "none":
        return ()
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise UsageError(f"{text!r} is no list of cores", where="--cores", hint="give numbers, such as 4,5, or none")
    return tuple(sorted({int(word) for word in words}))


def _pair(options: argparse.Namespace, path: Path) -> ModelPair:
    pair = open_model_pair(
        options.floats,
        path,
        data=options.data,
        count=options.samples,
        preprocess=options.preprocess,
        input_shapes=parse_input_shapes(options.input_shape),
        target=options.target,
        seed=1,  # other samples than those of the calibration
    )
    if pair.takes_pixels:
        what = "the model takes pixels and the float model takes numbers, so that they cannot run on the same samples"
        raise UsageError(what, where=str(path), hint="convert the model with --io float to measure it beside float")
    return pair


def _model(options: argparse.Namespace, pair: ModelPair) -> Model:
    target = options.target or pair.target

    def settings(machine: str) -> Mapping[str, str]:
        return session_settings(pair.model, target, named=options.target is not None, machine=machine)

    stored = read_model(pair.path)
    return Model(pair.path, load_external_data(pair.path, stored, list(tensors_of(stored))), settings)


def _answers(found: Found, pairs: Sequence[ModelPair], plans: Sequence[Plan], paths: Sequence[Path]) -> list[Answers]:
    floats, *others = (ran.outputs for ran in found.models)
    answers = [Answers(beside_float(pairs[0], found.device, floats))]
    for place, (pair, outputs) in enumerate(zip(pairs, others, strict=True)):
        plan = beside_plan(pair, plans[place], paths[place], floats, outputs) if plans else None
        answers.append(Answers(beside(pair, found.device, outputs), plan))
    return answers


def _judge(found: Found, models: Sequence[Model], answers: Sequence[Answers], least: float | None) -> None:
    """Raise VerificationError if the device does not compute what a plan says, BoundMissedError if it is too slow."""
    for model, each in zip(models, answers, strict=True):
        if each.plan is not None and parity_is_broken(each.plan.parity_db, each.plan.float_db):
            what = f"the device does not compute what the plan says: {each.plan.parity_db:.1f} dB, float {each.plan.float_db:.1f} dB"
            raise VerificationError(what, where=str(model.path), hint="see which ONNX Runtime the device has, and report it")
    for model, ran in zip(models[1:], found.models[1:], strict=True):
        ratio = ratio_of_times(found.models[0].times, ran.times).ratio
        if least is not None and not ratio >= least:
            what = f"float takes {ratio:.2f} times as long as {model.path.name}, less than {least:g}"
            raise BoundMissedError(what, where=found.device, hint="see whether the model was made for this device (--target)")


if __name__ == "__main__":
    raise SystemExit(main())
