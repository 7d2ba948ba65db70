"""What the documents claim about accuracy is what the measured rows say."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

from tools.compare.cells import FLOAT, Row, read_rows
from tools.compare.sources import STRESSED

DOCS = Path(__file__).parents[2] / "docs"
EVERYTHING = read_rows(DOCS / "measured" / "everything_in_integer.csv")
DEFAULT = read_rows(DOCS / "measured" / "default_placement.csv")
WIDTHS = ("W8A8", "W6A6", "W5A5", "W4A8")


def rows_of(rows: list[Row], method: str, bits: str, stressed: bool = False) -> list[Row]:
    found = [r for r in rows if (r.method, r.bits, r.model.endswith(STRESSED)) == (method, bits, stressed)]
    return sorted(found, key=lambda r: r.model)


def line_of(rows: list[Row]) -> str:
    """The cells of a table's line, as in docs/results.md."""
    top1 = " | ".join(f"{r.top1:.2f}" for r in rows)
    return f"| {top1} | {mean(r.drop for r in rows):.2f} | {mean(r.agreement for r in rows):.1f} |"


def complete(bits: str, stressed: bool) -> dict[str, list[Row]]:
    """Rows of all methods that were measured on all five networks."""
    names = {r.method for r in EVERYTHING if not r.method.startswith(("+", "scale")) and " " not in r.method and r.method != FLOAT}
    found = {name: rows_of(EVERYTHING, name, bits, stressed) for name in sorted(names)}
    return {name: rows for name, rows in found.items() if len(rows) == 5 and not any(r.failure for r in rows)}


@pytest.mark.parametrize("method", ["minmax", "mse", "q-hyvit"])
@pytest.mark.parametrize("bits", WIDTHS)
def test_the_table_of_results_holds_the_rows(method: str, bits: str) -> None:
    rows = rows_of(EVERYTHING, method, bits)
    assert len(rows) == 5
    assert f"`{method}` {line_of(rows)}" in (DOCS / "results.md").read_text()


@pytest.mark.parametrize("bits", WIDTHS)
def test_so_does_the_table_of_the_default_placement(bits: str) -> None:
    rows = rows_of(DEFAULT, "q-hyvit", bits)
    assert len(rows) == 5
    assert f"`q-hyvit` {line_of(rows)}" in (DOCS / "results.md").read_text()


@pytest.mark.parametrize("method", ["ort-static", "minmax", "mse", "easyquant", "repq-vit", "fq-vit", "ptq4vit"])
def test_it_holds_the_other_methods_at_8_bits_too(method: str) -> None:
    rows = rows_of(DEFAULT, method, "W8A8")
    assert len(rows) == 5
    assert f"`{method}` {line_of(rows)}" in (DOCS / "results.md").read_text()


@pytest.mark.parametrize("bits", ["W8A8", "W6A6"])
def test_so_does_the_table_of_the_stress_set(bits: str) -> None:
    assert f"`q-hyvit` {line_of(rows_of(EVERYTHING, 'q-hyvit', bits, stressed=True))}" in (DOCS / "results.md").read_text()


@pytest.mark.parametrize(("bits", "stressed"), [("W6A6", False), ("W5A5", False), ("W4A8", False), ("W8A8", True), ("W6A6", True)])
def test_no_other_method_has_a_higher_mean_below_8_bits_and_under_stress(bits: str, stressed: bool) -> None:
    means = {name: mean(r.top1 for r in rows) for name, rows in complete(bits, stressed).items()}
    assert len(means) >= 4
    assert max(means, key=lambda name: means[name]) == "q-hyvit"


@pytest.mark.parametrize("bits", WIDTHS)
def test_no_other_method_leaves_more_answers_as_they_are(bits: str) -> None:
    agreements = {name: mean(r.agreement for r in rows) for name, rows in complete(bits, stressed=False).items()}
    assert max(agreements, key=lambda name: agreements[name]) == "q-hyvit"


def test_stress_leaves_the_float_networks_as_they_are() -> None:
    plain, stressed = ({r.model.removesuffix(STRESSED): r.top1 for r in rows_of(EVERYTHING, FLOAT, "", s)} for s in (False, True))
    assert len(plain) == 5
    assert plain == stressed
