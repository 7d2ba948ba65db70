"""What CI does with a validation: ``python -m runtime_tests.ci comment | accept | history``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.errors import UsageError
from converter.load.files import check_outputs, write_files
from runtime_tests.ci.baseline import Version, baseline_text, versions
from runtime_tests.ci.comment import change, comment, read_failures
from runtime_tests.ci.history import history_svg
from runtime_tests.gates import read_gates, stored_figures
from runtime_tests.results import KINDS

__all__ = ["main"]

_FIGURES = 12
"""In a picture, unless some are named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    return exit_code(lambda: _run(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m runtime_tests.ci", description="What CI does with the results of python -m runtime_tests.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="comment | accept | history")
    told = commands.add_parser("comment", help="the results as Markdown, for a pull request")
    told.add_argument("results", type=Path, metavar="RESULTS.json", help="of --json; it need not be there")
    told.add_argument("--junit", type=Path, metavar="XML", help="of --junit: what failed")
    told.add_argument("--baseline", type=Path, metavar="FILE", help="figures to compare with; it need not be there yet")
    told.add_argument("--gates", type=Path, action="append", default=[], metavar="TOML", help="those of the validation")
    told.add_argument("--out", type=Path, metavar="FILE.md", help="default: stdout")
    taken = commands.add_parser("accept", help="make these results the baseline")
    taken.add_argument("results", type=Path, metavar="RESULTS.json")
    taken.add_argument("baseline", type=Path, metavar="BASELINE.json")
    drawn = commands.add_parser("history", help="all committed versions of the baseline as SVG")
    drawn.add_argument("baseline", type=Path, metavar="BASELINE.json")
    drawn.add_argument("--now", type=Path, metavar="RESULTS.json", help="as the last point; it need not be there")
    drawn.add_argument("--figure", action="append", default=[], metavar="NAME", help=f"repeatable (default: the first {_FIGURES})")
    drawn.add_argument("--out", type=Path, required=True, metavar="FILE.svg")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> None:
    {"comment": _comment, "accept": _accept, "history": _history}[options.command](options)


def _comment(options: argparse.Namespace) -> None:
    if options.out is not None:
        check_outputs({"--out": options.out}, {"RESULTS.json": options.results})
    figures = stored_figures(options.results) if options.results.exists() else None
    baseline = stored_figures(options.baseline) if options.baseline is not None and options.baseline.exists() else None
    gates = read_gates(options.gates) if figures is not None else []  # gates may be why there are no figures
    failures = read_failures(options.junit) if options.junit is not None and options.junit.exists() else []
    text = comment(figures, baseline, gates, failures)
    if options.out is None:
        print_line(text.rstrip("\n"))
    else:
        write_files({options.out: text.encode()})


def _accept(options: argparse.Namespace) -> None:
    check_outputs({"BASELINE.json": options.baseline}, {"RESULTS.json": options.results})
    before = stored_figures(options.baseline) if options.baseline.exists() else None
    write_files({options.baseline: baseline_text(options.results).encode()})
    now = stored_figures(options.baseline)
    for name, value in now.items():
        old = None if before is None else before.get(name)
        print_line(f"{name}: {value:.5g}" if old is None else f"{name}: {old:.5g} to {value:.5g}, {change(name, old, value)}")
    print_line(f"commit {options.baseline} with the change that moved the figures")


def _history(options: argparse.Namespace) -> None:
    inputs = {"BASELINE.json": options.baseline, **({} if options.now is None else {"--now": options.now})}
    check_outputs({"--out": options.out}, inputs)
    history = versions(options.baseline)
    if options.now is not None and options.now.exists():
        history.append(Version("", "", "", stored_figures(options.now)))
    if not history:
        raise UsageError("no version of the baseline is committed", where=str(options.baseline), hint="commit it, or give --now")
    there = {name for version in history for name in version.figures}
    for name in options.figure:
        if name not in there:
            raise UsageError(f"no version has a figure '{name}'", where="--figure", hint=f"they have: {', '.join(sorted(there))}")
    names = options.figure or [name for name in KINDS if name in there and KINDS[name].steady][:_FIGURES]
    if not names:
        raise UsageError("no version has a figure that does not depend on the day", where=str(options.baseline), hint="name one: --figure")
    write_files({options.out: history_svg(history, names).encode()})


if __name__ == "__main__":
    raise SystemExit(main())
