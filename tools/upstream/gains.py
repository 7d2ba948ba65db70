"""What our proposals to ONNX Runtime would win in whole models: ``python -m tools.upstream.gains MODEL.onnx [...] [--core CORE]``.

Of each model every node is counted by itself, as by ``tools.arm64.count --per-op``. Two Markdown tables: what each type of kernel takes,
and what each proposal would take off by the bounds in :mod:`tools.upstream.bounds`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.load.files import check_outputs, write_files
from runtime_tests.emulation.cores import CORES, check_core
from runtime_tests.emulation.environment import RUNTIME_CHOICE, Environment, environment
from runtime_tests.emulation.setup import require
from tools.arm64.per_op import take_apart
from tools.upstream.kernels import Kernel, kernel_of
from tools.upstream.proposals import PROPOSALS
from tools.upstream.rules import RULES, Gain

__all__ = ["Whole", "by_type_markdown", "gains_markdown", "main", "taken_apart"]

_MILLION = 1e6


@dataclass(frozen=True)
class Whole:
    """A model taken apart.

    Attributes:
        name: of its file.
        instructions: of one inference.
        kernels: its nodes, in the order in which they run.
        ran: what ran it, in a line.
    """

    name: str
    instructions: float
    kernels: tuple[Kernel, ...]
    ran: str


def taken_apart(path: Path, core: str, env: Environment, inputs: Path | None = None) -> Whole:
    """Count a model and all its nodes. Exceptions as of :func:`tools.arm64.per_op.take_apart`."""
    found = take_apart(path, core, inputs=inputs, env=env)
    (call,) = found.bound_call.instructions
    kernels = tuple(
        kernel_of(part.model, float(result.instructions[0] - call) if result.error is None else 0.0)
        for part, result in zip(found.parts, found.alone, strict=True)
    )
    return Whole(path.stem, found.whole.median, kernels, str(found.whole.machine))


def by_type_markdown(wholes: Sequence[Whole], least: float = 0.5) -> str:
    """Millions of instructions by type of kernel, the dearest first; types that take less than so many in every model are one row."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(wholes))
    for column, whole in enumerate(wholes):
        for kernel in whole.kernels:
            sums[kernel.op_type][column] += kernel.instructions / _MILLION
    few = [op_type for op_type, row in sums.items() if max(row) < least]
    others = [sum(sums[op_type][column] for op_type in few) for column in range(len(wholes))]
    rows = sorted(((op_type, row) for op_type, row in sums.items() if op_type not in few), key=lambda each: -sum(each[1]))
    known = [sum(row[column] for row in sums.values()) for column in range(len(wholes))]
    rest = [whole.instructions / _MILLION - known[column] for column, whole in enumerate(wholes)]
    ends = [("all others", others), ("between nodes", rest), ("whole model", [whole.instructions / _MILLION for whole in wholes])]
    return _table("kernel", wholes, [(name, [f"{cell:.1f}" if cell else "" for cell in row]) for name, row in [*rows, *ends]])


def gains_markdown(wholes: Sequence[Whole], gains: Sequence[Mapping[str, Gain]]) -> str:
    """Millions of instructions that the nodes of each proposal take, those they could take, and in brackets what is won; then the whole."""
    rows = []
    for proposal in PROPOSALS:
        found = [gain[proposal.name] for gain in gains]
        rows.append((proposal.title, [_won(each) for each in found]))
    won = [sum(g.today - g.bound for g in gain.values()) for gain in gains]
    rows.append(("all together would win", [f"{each / _MILLION:.1f}" for each in won]))
    rows.append(("whole model", [f"{w.instructions / _MILLION:.1f}" for w in wholes]))
    rows.append(("whole model with all", [f"{(w.instructions - each) / _MILLION:.1f}" for w, each in zip(wholes, won, strict=True)]))
    return _table("proposal", wholes, rows)


def _won(gain: Gain) -> str:
    if not gain.nodes:
        return ""
    return f"{gain.today / _MILLION:.1f} → {gain.bound / _MILLION:.1f} ({(gain.today - gain.bound) / _MILLION:.1f})"


def _table(first: str, wholes: Sequence[Whole], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    head = [f"| {' | '.join([first, *(whole.name for whole in wholes)])} |", f"| --- |{' ---: |' * len(wholes)}"]
    return "\n".join([*head, *(f"| {' | '.join([name, *cells])} |" for name, cells in rows)])


def gains_of(whole: Whole, rules: Mapping[str, Callable[[Sequence[Kernel]], Gain]] = RULES) -> dict[str, Gain]:
    """What each proposal would win, by its name. No node belongs to two."""
    return {name: rule(whole.kernels) for name, rule in rules.items()}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.upstream.gains", description="What our proposals to ONNX Runtime would win in whole models.")
    add = parser.add_argument
    add("models", nargs="+", type=Path, metavar="MODEL.onnx", help="int8 models")
    add("--core", default="cortex-a76", metavar="CORE", help=f"{' | '.join(CORES)} (default cortex-a76)")
    add("--inputs", type=Path, metavar="NPZ", help="arrays to run on (default: seeded noise)")
    add("--json", type=Path, metavar="FILE", help="write everything as JSON")
    add("--runtime", default="newest", metavar="VERSION", help=f"ONNX Runtime: {RUNTIME_CHOICE} (default newest)")
    add("--root", type=Path, metavar="DIR", help="folder of the emulated machine's set-up")
    flags = parser.parse_args(arguments)
    if flags.json is not None:
        check_outputs({"--json": flags.json}, {f"MODEL {place}": model for place, model in enumerate(flags.models, 1)})
    return flags


def _run(flags: argparse.Namespace) -> None:
    env = environment(flags.root, flags.runtime)
    check_core(flags.core)
    require(env)
    wholes = [taken_apart(model, flags.core, env, flags.inputs) for model in flags.models]
    gains = [gains_of(whole) for whole in wholes]
    print_line(f"{wholes[0].ran}; millions of instructions\n\n{by_type_markdown(wholes)}\n\n{gains_markdown(wholes, gains)}")
    if flags.json is not None:
        content = [
            {"model": whole.name, "instructions": whole.instructions, "gains": {name: asdict(gain) for name, gain in found.items()}}
            for whole, found in zip(wholes, gains, strict=True)
        ]
        write_files({flags.json: (json.dumps(content, indent=2) + "\n").encode()})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(_parse(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
