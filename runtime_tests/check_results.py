"""Outcomes: every check and gate as passed, failed or skipped; as JUnit XML, and as one error."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from converter.errors import BoundMissedError, ConverterError, VerificationError
from converter.verify.parity import LEAST_PARITY_DB, parity_is_broken
from runtime_tests.gates import Gate, miss
from runtime_tests.results import KINDS, Results, figures

__all__ = ["CheckResult", "broken_result", "junit_xml", "raise_failures", "run_checks", "run_gates"]

_UNPRINTABLE = dict.fromkeys(range(32), " ")
_MOST_ESCAPES = 3


@dataclass(frozen=True)
class CheckResult:
    """One check or gate.

    Attributes:
        kind: a check is about soundness, a gate about a limit of the user's.
        name: of the check, or of the gate as in its file.
        seconds: what measuring took; 0 for a gate.
        failure: why it failed; empty if it did not.
        error: why the whole validation could not be carried out; empty if it was.
        skipped: why it was not done; empty if it was.
        detail: what was found.
    """

    kind: Literal["check", "gate"]
    name: str
    seconds: float = 0.0
    failure: str = ""
    error: str = ""
    skipped: str = ""
    detail: str = ""


def run_checks(results: Results, seconds: Mapping[str, float]) -> list[CheckResult]:
    """The checks, in the order in which they were done, and those that were not done."""
    failures = {"confinement": _escapes(results), "parity": _parity(results)}
    done = [CheckResult("check", name, took, failures.get(name, "")) for name, took in seconds.items()]
    return done + [CheckResult("check", name, skipped=reason) for name, reason in results.skipped.items()]


def broken_result(error: Exception) -> CheckResult:
    """What is left to report of a validation that ended with an error."""
    what = str(error) if isinstance(error, ConverterError) else f"{type(error).__name__}: {error}"
    return CheckResult("check", "validation", error=what)


def _escapes(results: Results) -> str:
    escapes = results.confinement.escapes
    shown = [f"{e.tensor} holds {e.found[0]}..{e.found[1]}, allowed is {e.allowed[0]}..{e.allowed[1]}" for e in escapes[:_MOST_ESCAPES]]
    more = f"; and {len(escapes) - len(shown)} more" if len(escapes) > len(shown) else ""
    return f"codes leave their grid: {'; '.join(shown)}{more}" if escapes else ""


def _parity(results: Results) -> str:
    """A chaotic network may be far from its graph if it is farther from float; not if nothing of float's signal is left."""
    parity, quality = results.parity.db, results.closeness.sqnr_db
    broken = parity_is_broken(parity, quality) or (parity < LEAST_PARITY_DB and quality <= 0)
    at = f" at '{results.parity.output}'" if results.parity.output else ""
    return f"the runtime does not compute what it should: {parity:.1f} dB{at}, compared with {results.parity.reference}" if broken else ""


def run_gates(gates: Sequence[Gate], results: Results) -> list[CheckResult]:
    """What became of each gate; every figure was measured."""
    found = figures(results)
    shown = {name: f"{name} is {value:.5g} ({KINDS[name].meaning})" for name, value in found.items()}
    return [CheckResult("gate", g.name, failure=miss(g, found[g.figure]), detail=shown[g.figure]) for g in gates]


def junit_xml(suite: str, check_results: Sequence[CheckResult]) -> bytes:
    """One ``testsuite`` with a ``testcase`` for each outcome, in the dialect that GitHub, GitLab and Jenkins read."""
    counts = {
        "tests": str(len(check_results)),
        "failures": str(sum(bool(o.failure) for o in check_results)),
        "errors": str(sum(bool(o.error) for o in check_results)),
        "skipped": str(sum(bool(o.skipped) for o in check_results)),
        "time": f"{sum(o.seconds for o in check_results):.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "runtime_tests", **counts})
    tests = ElementTree.SubElement(root, "testsuite", {"name": _text(suite), **counts})
    for result in check_results:
        names = {"classname": f"runtime_tests.{result.kind}", "name": _text(result.name), "time": f"{result.seconds:.3f}"}
        case = ElementTree.SubElement(tests, "testcase", names)
        if result.failure:
            kind = "VerificationError" if result.kind == "check" else "BoundMissedError"
            ElementTree.SubElement(case, "failure", {"message": _text(result.failure), "type": kind}).text = _text(result.failure)
        elif result.error:
            ElementTree.SubElement(case, "error", {"message": _text(result.error)}).text = _text(result.error)
        elif result.skipped:
            ElementTree.SubElement(case, "skipped", {"message": _text(result.skipped)})
        if result.detail:
            ElementTree.SubElement(case, "system-out").text = _text(result.detail)
    ElementTree.indent(root)
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _text(text: str) -> str:
    """Names come from files: XML 1.0 has no place for control characters."""
    return text.translate(_UNPRINTABLE)


def raise_failures(check_results: Sequence[CheckResult], suite: str) -> None:
    """Turn failures into one error; a model that is not sound comes before one that misses a gate.

    Raises:
        VerificationError: a check failed.
        BoundMissedError: a gate was missed; names each figure, its value and its limit.
    """
    checks, gates = ([o.failure for o in check_results if o.failure and o.kind == kind] for kind in ("check", "gate"))
    if checks:
        raise VerificationError("; ".join(checks), where=suite, hint="convert it again; if it stays so, report it")
    if gates:
        what = "a gate was missed" if len(gates) == 1 else f"{len(gates)} gates were missed"
        raise BoundMissedError(f"{what}: {'; '.join(gates)}", where=suite, hint="find what changed, or change the limit")
