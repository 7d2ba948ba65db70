"""Make and count the models of our proposals to ONNX Runtime: ``python -m tools.upstream [--out DIR] [--core CORE]``.

One Markdown table: for each proposal its models, what their kernels take today on an emulated core, and what they could take.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.load.files import write_files
from runtime_tests.emulation.cores import CORES, check_core
from runtime_tests.emulation.environment import RUNTIME_CHOICE, Environment, environment
from runtime_tests.emulation.setup import require
from tools.profile.arm64 import counted_nodes
from tools.profile.samples import Timed
from tools.upstream.models import CASES, MAC, Case, amount, joined, model_of
from tools.upstream.proposals import PROPOSALS, Proposal

__all__ = ["counted", "main", "markdown", "taken"]


def counted(cases: Sequence[Case], core: str, env: Environment) -> tuple[dict[str, float], str]:
    """Instructions that the kernels of each case take, by its name; and what ran them, in a line.

    All are counted side by side in one model, each node by itself.
    """
    nodes, _, ran = counted_nodes(joined([model_of(case, place) for place, case in enumerate(cases)]), core, env)
    return {case.name: taken(case, place, nodes) for place, case in enumerate(cases)}, ran


def taken(case: Case, place: int, nodes: Sequence[Timed]) -> float:
    """Instructions of the nodes of a case that are of its kernels.

    Raises:
        AssertionError: the runtime made no such nodes of it.
    """
    costs = [node.cost for node in nodes if node.branch == f"p{place:04}" and node.op_type in case.kernels]
    assert costs and None not in costs, f"{case.name}: {[node.op_type for node in nodes if node.branch == f'p{place:04}']}"
    return sum(cost for cost in costs if cost is not None)


def markdown(proposals: Sequence[Proposal], costs: Mapping[str, float]) -> str:
    """The table; a case beside has no bound."""
    lines = ["| proposal | model | | M instructions | for each | today | could be |", "| --- | --- | --- | ---: | --- | ---: | ---: |"]
    for proposal in proposals:
        for place, case in enumerate(proposal.cases):
            bound, cost = proposal.bound(case), costs[case.name]
            digits = 3 if case.per == MAC else 2
            cells = [
                proposal.title if place == 0 else "",
                f"`{case.name}`",
                case.what,
                f"{cost / 1e6:.3f}",
                case.per,
                f"{cost / amount(case):.{digits}f}",
                "" if bound is None else f"{bound:.{digits}f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    reasons = [f"* {proposal.title}: {proposal.reason}." for proposal in proposals]
    return "\n".join([*lines, "", "Where the bounds come from:", "", *reasons])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.upstream", description="Make and count the models of our proposals to ONNX Runtime.")
    add = parser.add_argument
    names = [proposal.name for proposal in PROPOSALS]
    add("--out", type=Path, metavar="DIR", help="write the models there, one file for each")
    add("--only", nargs="+", default=names, choices=names, metavar="NAME", help=f"of {', '.join(names)} (default all)")
    add("--core", default="cortex-a76", metavar="CORE", help=f"{' | '.join(CORES)} (default cortex-a76)")
    add("--runtime", default="newest", metavar="VERSION", help=f"ONNX Runtime: {RUNTIME_CHOICE} (default newest)")
    add("--root", type=Path, metavar="DIR", help="folder of the emulated machine's set-up")
    return parser.parse_args(arguments)


def _run(flags: argparse.Namespace) -> None:
    proposals = [proposal for proposal in PROPOSALS if proposal.name in flags.only]
    cases = [case for case in CASES if any(case in proposal.cases for proposal in proposals)]
    if flags.out is not None:
        flags.out.mkdir(parents=True, exist_ok=True)
        write_files({flags.out.absolute() / f"{case.name}.onnx": model_of(case).SerializeToString(deterministic=True) for case in cases})
    env = environment(flags.root, flags.runtime)
    check_core(flags.core)
    require(env)
    costs, ran = counted(cases, flags.core, env)
    print_line(f"{ran}\n\n{markdown(proposals, costs)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(_parse(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
