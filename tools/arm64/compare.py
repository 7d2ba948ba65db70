"""Compare a model's outputs between ARM64 cores and x86: ``python -m tools.arm64.compare MODEL.onnx --core CORE --core CORE``."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from converter.cli.command import Parser, exit_code
from converter.load.files import check_outputs, write_files
from runtime_tests.emulation.compare import Difference, compare
from runtime_tests.emulation.cores import CORES
from runtime_tests.emulation.environment import RUNTIME_CHOICE, environment

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print; returns the exit code, which does not depend on what differs."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.arm64.compare", description="Compare a model's outputs between ARM64 cores and this machine.")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--core", action="append", metavar="CORE", help=f"{' | '.join(CORES)}; repeatable, the first is the reference")
    parser.add_argument("--target", default="arm64", metavar="NAME", help="whose kernels run on this machine (default arm64)")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="of noise (default 1)")
    parser.add_argument("--inputs", type=Path, metavar="NPZ", help="arrays to run on (default: seeded noise)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise (default 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--runtime", default="newest", metavar="VERSION", help=f"ONNX Runtime: {RUNTIME_CHOICE} (default newest)")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the set-up")
    flags = parser.parse_args(arguments)
    if flags.json is not None:
        check_outputs({"--json": flags.json}, {"MODEL": flags.model})
    cores = flags.core or ["cortex-a76", "cortex-a53"]
    env = environment(flags.root, flags.runtime)
    found = compare(flags.model, cores, target=flags.target, inputs=flags.inputs, samples=flags.samples, seed=flags.seed, env=env)
    _print(flags.model, cores[0], found)
    if flags.json is not None:
        write_files({flags.json: _json(flags.model, cores[0], found).encode()})


def _json(model: Path, reference: str, found: Sequence[Difference]) -> str:
    return json.dumps({"model": str(model), "reference": reference, "differences": [dataclasses.asdict(d) for d in found]}, indent=2) + "\n"


def _print(model: Path, reference: str, found: Sequence[Difference]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(f"{model}: compared with {reference}", markup=False)
    table = Table()
    for heading in ("machine", "ONNX Runtime", "output", "largest difference", "largest value", "same prediction"):
        table.add_column(heading, overflow="fold", justify="right" if heading.startswith(("largest", "same")) else "left")
    for each in found:
        same = f"{each.equal} of {each.predictions}" if each.predictions else "-"
        table.add_row(each.machine, each.onnxruntime, escape(each.output), f"{each.largest:.3g}", f"{each.scale:.3g}", same)
    console.print(table)


if __name__ == "__main__":
    raise SystemExit(main())
