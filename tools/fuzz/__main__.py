"""Look for what may never happen: ``python -m tools.fuzz [graphs|mutations|data|files ...] [--count N] [--seed S]``.

Prints each case with a fault and the seed that repeats it, and in the end a line for each kind; exit 1 if there was a fault.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.errors import VerificationError
from tools.fuzz.campaign import KINDS, run_cases, summary
from tools.fuzz.mutations import prepare

__all__ = ["main"]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.fuzz", description="Random models, damaged models, broken data, disturbed files.")
    parser.add_argument("kinds", nargs="*", default=KINDS, metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--count", type=int, default=100, help="cases of each kind (default 100)")
    parser.add_argument("--seed", type=int, default=1, help="of the first; the others follow (default 1)")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument("--keep", type=Path, help="folder for the files of cases that show a fault")
    flags = parser.parse_args(arguments)
    for kind in flags.kinds:
        if kind not in KINDS:
            parser.error(f"'{kind}' is no kind; choose from {', '.join(KINDS)}")
    if min(flags.count, flags.jobs) < 1:
        parser.error("--count and --jobs are 1 or more")
    return flags


def _run(flags: argparse.Namespace) -> None:
    lines, faulty = [], 0
    for kind in flags.kinds:
        if kind == "mutations":
            prepare()
        outcomes = []
        for outcome in run_cases(kind, range(flags.seed, flags.seed + flags.count), flags.jobs, flags.keep):
            outcomes.append(outcome)
            if outcome.faults:
                faulty += 1
                print_line(f"{kind} --count 1 --seed {outcome.seed}: {outcome.what}: {' | '.join(outcome.faults)}"[:1000])
        lines.append(summary(kind, outcomes))
    for line in lines:
        print_line(line)
    if faulty:
        raise VerificationError(f"{faulty} cases show a fault", hint="repeat one by its line: python -m tools.fuzz KIND --count 1 --seed N")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(_parse(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
