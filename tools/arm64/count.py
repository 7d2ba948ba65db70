"""Count the ARM64 instructions of one inference: ``python -m tools.arm64.count MODEL.onnx [MODEL.onnx ...] --core CORE``."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from converter.cli.command import exit_code
from converter.errors import UsageError
from converter.load.files import write_files
from runtime_tests.emulation.cores import CORES
from runtime_tests.emulation.count import Count, count
from runtime_tests.emulation.environment import environment
from tools.arm64.flags import model_parser, parse_models
from tools.arm64.per_op import count_per_op, per_op_json, print_per_op

__all__ = ["counts_json", "main", "print_counts"]


def counts_json(counts: Sequence[Count]) -> str:
    """Counts as JSON: versions and core, then for each model its digest and every run."""
    machine = counts[0].machine
    models = [
        {
            "model": str(c.model),
            "sha256": c.digest,
            "instructions": c.instructions,
            "median": c.median,
            "ratio": c.median / counts[0].median,
        }
        for c in counts
    ]
    return json.dumps({"machine": dataclasses.asdict(machine), "models": models}, indent=2) + "\n"


def print_counts(console: Console, counts: Sequence[Count]) -> None:
    """A table: millions of instructions, and the ratio to the first model."""
    console.print(str(counts[0].machine))
    table = Table()
    table.add_column("model", overflow="fold")
    for heading in ("M instructions", "ratio"):
        table.add_column(heading, justify="right")
    for found in counts:
        table.add_row(escape(str(found.model)), f"{found.median / 1e6:.3f}", f"{found.median / counts[0].median:.3f}")
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Count and print; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    what = "Count the ARM64 instructions of one inference, by emulation."
    parser = model_parser("python -m tools.arm64.count", what, CORES, "of one model: what each node and each type of node takes")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="counted runs, after one to warm up (default 1)")
    flags = parse_models(parser, arguments)
    if flags.per_op and len(flags.models) != 1:
        what = f"--per-op takes one model, not {len(flags.models)}"
        raise UsageError(what, where="--per-op", hint="run it for each model by itself")
    env = environment(flags.root, flags.runtime)
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    if flags.per_op:
        found = count_per_op(flags.models[0], flags.core, inputs=flags.inputs, seed=flags.seed, env=env)
        print_per_op(console, found)
        text = per_op_json(found)
    else:
        counts = count(flags.models, flags.core, inputs=flags.inputs, seed=flags.seed, runs=flags.runs, env=env)
        print_counts(console, counts)
        text = counts_json(counts)
    if flags.json is not None:
        write_files({flags.json: text.encode()})


if __name__ == "__main__":
    raise SystemExit(main())
