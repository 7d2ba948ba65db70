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
from runtime_tests.emulation.environment import RUNTIME_CHOICE, environment
from runtime_tests.emulation.setup import require
from tools.upstream.counting import Taken, counted
from tools.upstream.models import CASES, MAC, Case, amount, model_of
from tools.upstream.proposals import PROPOSALS, Proposal

__all__ = ["main", "markdown"]


def markdown(proposals: Sequence[Proposal], costs: Mapping[str, Taken]) -> str:
    """The table; a case beside may have no bound, and only products of matrices have parts."""
    heads = ["proposal", "model", "what", "M instructions", "for each", "today", "sums", "codes", "rest", "could be"]
    lines = [f"| {' | '.join(heads)} |", "| --- | --- | --- | ---: | --- |" + " ---: |" * 5]
    for proposal in proposals:
        for place, case in enumerate(proposal.cases):
            lines.append(f"| {' | '.join([proposal.title if place == 0 else '', *_cells(proposal, case, costs[case.name])])} |")
    reasons = [f"* {proposal.title}: {proposal.reason}." for proposal in proposals]
    return "\n".join([*lines, "", "Where the bounds come from:", "", *reasons])


def _cells(proposal: Proposal, case: Case, taken: Taken) -> list[str]:
    digits, per = (3 if case.per == MAC else 2), amount(case)
    bound = proposal.bound(case)
    parts = [f"{part / per:.{digits}f}" if case.per == MAC else "" for part in (taken.sums, taken.codes, taken.rest)]
    first = [f"`{case.name}`", case.what, f"{taken.whole / 1e6:.3f}", case.per, f"{taken.whole / per:.{digits}f}"]
    return [*first, *parts, "" if bound is None else f"{bound:.{digits}f}"]


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
