"""The command: measure, print, write, judge."""

from __future__ import annotations

import argparse
import hashlib
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from converter.calibration.input_shapes import parse_input_shapes
from converter.cli.command import Parser, exit_code, print_line
from converter.cli.report_tables import render
from converter.errors import UsageError
from converter.load.files import check_outputs, write_files
from converter.load.metadata import BITS
from converter.plan.records import Plan
from converter.planning.replay import read_plan
from converter.runtime.latency import LatencyRatio, latency_ratio
from converter.targets import TARGETS
from converter.verify.coverage_by_profile import coverage_of
from models.images import LabelledImages
from runtime_tests.check_results import CheckResult, broken_result, junit_xml, raise_failures, run_checks, run_gates
from runtime_tests.confinement import measure_confinement
from runtime_tests.cores import DEFAULT_CORES, measure_cores
from runtime_tests.emulation.cores import CORES, check_core, short_name
from runtime_tests.emulation.environment import environment
from runtime_tests.emulation.setup import require
from runtime_tests.gates import check_fine_enough, check_measurable, read_gates
from runtime_tests.model_pair import ModelPair, open_model_pair
from runtime_tests.parity import check_plan_is_of, measure_parity, measure_plan_parity
from runtime_tests.processes import OLDEST, measure_memory, measure_version
from runtime_tests.quality import labels_of, measure_accuracy, measure_closeness
from runtime_tests.results import KINDS, Results, figures, results_json
from runtime_tests.tables import results_table

__all__ = ["main"]

_WIDTH = 120  # of a table that goes to a file
_SAMPLES = 8
_LATENCY_SECONDS = 3.0

_T = TypeVar("_T")


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m runtime_tests") -> int:
    """Validate; returns the exit code: 5 if a check failed, 6 if a gate was missed."""
    return exit_code(lambda: _run(_parse(arguments, prog)))


def _parse(arguments: Sequence[str] | None, prog: str) -> argparse.Namespace:
    parser = Parser(prog=prog, description="Validate an int8 model against the float model it was converted from.")
    parser.add_argument("floats", type=Path, metavar="FLOAT.onnx")
    parser.add_argument("int8", type=Path, metavar="INT8.onnx")
    parser.add_argument("--data", type=Path, metavar="PATH", help="images (zip or folder; class folders give labels), .npz or .npy")
    parser.add_argument("--unlabelled", action="store_true", help="take the folders in --data for no classes")
    parser.add_argument("--limit", type=int, metavar="N", help="classify a random choice of N images, always the same one")
    parser.add_argument("--samples", type=int, default=_SAMPLES, metavar="N", help=f"for all but top-1 (default {_SAMPLES})")
    parser.add_argument("--preprocess", metavar="SPEC", help="of pictures, instead of the model's own, such as 'imagenet;resize=crop'")
    parser.add_argument("--input-shape", action="append", default=[], metavar="NAME:DIMS", help="sizes of open dimensions, x:1,3,48,320")
    parser.add_argument("--target", metavar="NAME", help="machine class of INT8.onnx (default: what the file says)")
    parser.add_argument("--plan-in", type=Path, metavar="FILE", help="plan of INT8.onnx (--plan-out), to compare with")
    parser.add_argument("--arm64", action="store_true", help="count instructions and compare outputs on emulated ARM64 cores")
    parser.add_argument("--core", action="append", metavar="CORE", help=f"{' | '.join(CORES)}; repeatable (default cortex-a76)")
    runtimes = parser.add_mutually_exclusive_group()
    runtimes.add_argument("--oldest", type=Path, metavar="DIR", help="another ONNX Runtime, as pip's --target leaves it")
    runtimes.add_argument("--no-oldest", action="store_true", help="leave the other ONNX Runtime out, for models that are too new for it")
    parser.add_argument("--gates", type=Path, action="append", default=[], metavar="TOML", help="limits; repeatable, later files win")
    parser.add_argument("--junit", type=Path, metavar="XML", help="checks and gates as JUnit XML")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything as JSON")
    parser.add_argument("--seconds", type=float, default=_LATENCY_SECONDS, metavar="S", help="of the latency measurement (default 3)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of accuracy and latency; 0: as many as there are cores")
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the choice of samples (default 1, another than for calibration)"
    )
    options = parser.parse_args(arguments)
    parser.check_least(options, limit=1, samples=1, threads=0, seconds=0)
    if options.core and not options.arm64:
        parser.error("--core means nothing without --arm64")
    return options


def _run(options: argparse.Namespace) -> None:
    outputs = {flag: path for flag, path in (("--junit", options.junit), ("--json", options.json)) if path is not None}
    inputs = {"FLOAT.onnx": options.floats, "INT8.onnx": options.int8, **{f"--gates {path}": path for path in options.gates}}
    inputs |= {} if options.plan_in is None else {"--plan-in": options.plan_in}
    check_outputs(outputs, inputs)
    try:
        results, check_results = _validated(options)
    except Exception as error:
        if options.junit is not None:  # a file of an earlier run would say that all is well
            write_files({options.junit: junit_xml(options.int8.name, [broken_result(error)])})
        raise
    if options.json is not None:
        write_files({options.json: results_json(results).encode()})
    if options.junit is not None:
        write_files({options.junit: junit_xml(options.int8.name, check_results)})
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((_WIDTH, 24)).columns if terminal else _WIDTH
    print_line(render(results_table(results, check_results), width, terminal=terminal).rstrip("\n"))
    raise_failures(check_results, options.int8.name)


def _validated(options: argparse.Namespace) -> tuple[Results, list[CheckResult]]:
    """Measure and judge; what makes no sense is refused before anything runs."""
    cores = tuple(check_core(core) for core in dict.fromkeys(options.core or DEFAULT_CORES)) if options.arm64 else ()
    gates = read_gates(options.gates)
    plan = None if options.plan_in is None else read_plan(options.plan_in)
    labelled = None if options.unlabelled else labels_of(options.data, options.limit)
    if options.limit is not None and (options.data is None or options.unlabelled):
        what = "--limit chooses among labelled images, and there are none"
        raise UsageError(what, where=f"--limit {options.limit}", hint=f"give {KINDS['top1'].needs}, or leave it out")
    oldest = None if options.no_oldest else _oldest(options.oldest)
    check_measurable(gates, _measurable(cores, labelled, oldest))
    if labelled is not None:
        check_fine_enough(gates, len(labelled))
    if cores:
        require(environment())
    results, seconds = _measure(options, cores, labelled, oldest, plan)
    check_measurable(gates, figures(results))
    return results, run_checks(results, seconds) + run_gates(gates, results)


def _oldest(given: Path | None) -> Path | None:
    if given is not None and not (given / "onnxruntime").is_dir():
        raise UsageError(
            "there is no onnxruntime in this folder", where=f"--oldest {given}", hint="pip install --target DIR onnxruntime==X"
        )
    return given or (OLDEST if OLDEST.is_dir() else None)


def _measurable(cores: Sequence[str], labelled: LabelledImages | None, oldest: Path | None) -> set[str]:
    """Figures that can be measured with these flags, before anything runs."""
    needing_labels, per_core = {"top1", "drop"}, {name for name in KINDS if name.startswith(("ratio_", "instructions_"))}
    found = set(KINDS) - needing_labels - per_core - {"core_agreement", "version_agreement"}
    found |= needing_labels if labelled is not None else set()
    found |= {"version_agreement"} if oldest is not None else set()
    found |= {"core_agreement"} if cores else set()
    return found | {f"{kind}_{short_name(core)}" for core in cores for kind in ("ratio", "instructions")}


def _measure(
    options: argparse.Namespace, cores: Sequence[str], labelled: LabelledImages | None, oldest: Path | None, plan: Plan | None
) -> tuple[Results, dict[str, float]]:
    """Everything, and the seconds that each part took."""
    seconds: dict[str, float] = {}

    def timed(name: str, part: Callable[[], _T]) -> _T:
        start = time.monotonic()
        result = part()
        seconds[name] = time.monotonic() - start
        return result

    model_pair = timed(
        "loads",
        lambda: open_model_pair(
            options.floats,
            options.int8,
            data=options.data,
            count=options.samples,
            preprocess=options.preprocess,
            input_shapes=parse_input_shapes(options.input_shape),
            target=options.target,
            seed=options.seed,
        ),
    )
    if plan is not None:
        check_plan_is_of(plan, model_pair, options.plan_in)
    accuracy, skipped = None, {}
    if labelled is not None:
        accuracy, closeness = timed("accuracy", lambda: measure_accuracy(model_pair, labelled, threads=options.threads))
    else:
        closeness = timed("closeness", lambda: measure_closeness(model_pair))
        skipped["accuracy"] = f"give {KINDS['top1'].needs}"
    coverage = timed("coverage", lambda: coverage_of(model_pair.model, model_pair.feeds[0], model_pair.settings))
    confinement = timed("confinement", lambda: measure_confinement(model_pair))
    if model_pair.bits is None and not confinement.activations + confinement.weights:
        del seconds["confinement"]
        skipped["confinement"] = f"the file does not say how many bits its codes have ({BITS}), and clips none"
    parity = timed("parity", lambda: measure_parity(model_pair) if plan is None else measure_plan_parity(model_pair, plan, options.plan_in))
    memory = timed("memory", lambda: measure_memory(model_pair))
    latency = timed("latency", lambda: _latency(model_pair, options.threads, options.seconds))
    version = timed("runtime versions", lambda: measure_version(model_pair, oldest)) if oldest is not None else None
    if version is None:
        skipped["runtime versions"] = f"give {KINDS['version_agreement'].needs}"
    instructions, elsewhere = timed("arm64", lambda: measure_cores(model_pair, cores)) if cores else ([], [])
    if not cores:
        skipped["arm64"] = "give --arm64"
    results = Results(
        _models(model_pair), accuracy, closeness, coverage, confinement, parity, memory, latency,
        tuple(instructions), tuple(elsewhere), version, skipped,
    )  # fmt: skip
    return results, seconds


def _latency(model_pair: ModelPair, threads: int, seconds: float) -> LatencyRatio:
    """With this machine's own kernels, not the target's: settings that imitate another machine mean nothing for speed."""
    return latency_ratio(model_pair.floats.model, model_pair.model, model_pair.feeds[0], threads=threads, seconds=seconds)


def _models(model_pair: ModelPair) -> dict[str, dict[str, str]]:
    target = model_pair.target or ""
    elsewhere = "yes" if target in TARGETS and platform.machine() not in TARGETS[target].architectures else ""
    digest = hashlib.sha256(model_pair.path.read_bytes()).hexdigest()
    return {
        "float": {"file": model_pair.floats.path.name, "sha256": model_pair.floats.digest},
        "int8": {"file": model_pair.path.name, "sha256": digest, "target": target, "elsewhere": elsewhere},
    }
