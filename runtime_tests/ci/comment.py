"""A validation as a comment for a pull request, in Markdown: figures, their change since the baseline, gates, and what failed."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.errors import UsageError
from runtime_tests.gates import Gate, miss
from runtime_tests.results import KINDS

__all__ = ["MARK", "Failure", "change", "comment", "read_failures"]

MARK = "<!-- bridgequant int8 -->"
"""First line of every comment, by which a script finds the one of an earlier run."""

_LONGEST = 400
_EQUAL = 1e-9
_MARKUP = str.maketrans({"&": "&amp;", "@": "&#64;", **{letter: f"\\{letter}" for letter in "\\`*_{}[]<>()#|~"}})
"""Names come from files of whoever opened the pull request; an at sign would call people."""


@dataclass(frozen=True)
class Failure:
    """What did not pass.

    Attributes:
        name: of the check or gate.
        message: why.
        gate: it is a limit, rather than a check of soundness.
    """

    name: str
    message: str
    gate: bool


def read_failures(path: Path) -> list[Failure]:
    """Failures and errors of a validation's JUnit XML.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except OSError as error:
        raise UsageError(f"the JUnit XML cannot be read: {error.strerror}", where=str(path), hint="write it with --junit") from None
    except ElementTree.ParseError as error:
        raise UsageError(f"the file is not XML: {error}", where=str(path), hint="write it with --junit") from None
    found = []
    for case in cases:
        for wrong in (*case.findall("failure"), *case.findall("error")):
            gate = case.get("classname", "").endswith(".gate")
            found.append(Failure(case.get("name", ""), wrong.get("message", ""), gate))
    return found


def comment(
    figures: Mapping[str, float] | None, baseline: Mapping[str, float] | None, gates: Sequence[Gate], failures: Sequence[Failure]
) -> str:
    """The comment.

    Args:
        figures: of the validation; None if it did not get that far.
        baseline: figures to compare with; None if there are none yet.
        gates: that were judged.
        failures: of checks and gates.
    """
    lines = [MARK, f"### int8 model: {_verdict(figures, gates, failures)}", ""]
    lines += [f"* {_plain(failure.name)}: {_plain(failure.message)}" for failure in failures]
    if failures:
        lines.append("")
    if figures is not None:
        lines += _table(figures, baseline, gates)
    if figures is not None and baseline is None:
        lines += ["", "There is no baseline yet."]
    return "\n".join(lines) + "\n"


def _verdict(figures: Mapping[str, float] | None, gates: Sequence[Gate], failures: Sequence[Failure]) -> str:
    missed = sum(failure.gate for failure in failures)
    if figures is None:
        return "❌ not validated" if failures else "❌ not validated, see the log"
    if missed < len(failures):
        return "❌ not sound"
    if missed:
        return f"❌ {missed} gate{'s' if missed > 1 else ''} missed"
    return "✅ sound, all gates kept" if gates else "✅ sound"


def _table(figures: Mapping[str, float], baseline: Mapping[str, float] | None, gates: Sequence[Gate]) -> Iterator[str]:
    yield "| figure | baseline | now | change | gates |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for name, value in figures.items():
        before = None if baseline is None else baseline.get(name)
        meaning = f"`{name}`" if name not in KINDS else f"`{name}`, {KINDS[name].meaning}"
        cells = [meaning, "" if before is None else f"{before:.5g}", f"{value:.5g}", "" if before is None else change(name, before, value)]
        yield f"| {' | '.join([*cells, _gates(name, value, gates)])} |"


def change(name: str, before: float, now: float) -> str:
    """How a figure changed: shares in points, decibels as they are, all else in percent; and whether that is better or worse."""
    if abs(now - before) <= _EQUAL * max(abs(now), abs(before)):
        return "same"
    in_points = name not in KINDS or KINDS[name].percent or name.endswith("_db") or before == 0.0
    amount = f"{now - before:+.2f}" if in_points else f"{100.0 * (now - before) / abs(before):+.2f} %"
    if name not in KINDS or not KINDS[name].steady:
        return amount  # what depends on the clock or the day is neither
    return f"{amount}, {'better' if (now > before) == KINDS[name].higher_is_better else 'worse'}"


def _gates(name: str, value: float, gates: Sequence[Gate]) -> str:
    cells = []
    for gate in gates:
        if gate.figure == name:
            sign = "≥" if KINDS[name].higher_is_better else "≤"
            whose = f" ({_plain(gate.origin)})" if gate.origin else ""
            cells.append(f"{'❌' if miss(gate, value) else '✅'} {sign} {gate.limit:.5g}{whose}")
    return "<br>".join(cells)


def _plain(text: str) -> str:
    """Text that means nothing in Markdown or HTML, in one line."""
    line = " ".join(text.split())
    return (line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…").translate(_MARKUP)
