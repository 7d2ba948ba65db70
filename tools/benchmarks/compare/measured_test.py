"""What the documents claim about accuracy is what the measured rows say."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

from tools.benchmarks.compare.cells import FLOAT, Row, read_rows
from tools.benchmarks.compare.sources import STRESSED

DOCS = Path(__file__).parents[2] / "docs"
EVERYTHING = read_rows(DOCS / "measured" / "everything_in_integer.csv")
DEFAULT = read_rows(DOCS / "measured" / "default_placement.csv")
LOSSES = read_rows(DOCS / "measured" / "default_losses.csv")
METHODS = {"minmax", "mse", "easyquant", "fq-vit", "ptq4vit", "repq-vit", "q-hyvit"}
WIDTHS = ("W8A8", "W6A6", "W5A5", "W4A8")


def rows_of(rows: list[Row], method: str, bits: str, stressed: bool = False) -> list[Row]:
    found = [r for r in rows if (r.method, r.bits, r.model.endswith(STRESSED)) == (method, bits, stressed)]
    return sorted(found, key=lambda r: r.model)


def line_of(rows: list[Row]) -> str:
    """The cells of a table's line, as in docs/results.md."""
    top1 = " | ".join(f"{r.top1:.2f}" for r in rows)
    return f"| {top1} | {mean(r.drop for r in rows):.2f} | {mean(r.agreement for r in rows):.1f} |"


def complete(rows: list[Row], bits: str, stressed: bool = False) -> dict[str, list[Row]]:
    """Rows of all methods that were measured on all five networks."""
    names = {r.method for r in rows if not r.method.startswith(("+", "scale")) and " " not in r.method and r.method != FLOAT}
    found = {name: rows_of(rows, name, bits, stressed) for name in sorted(names)}
    return {name: rows for name, rows in found.items() if len(rows) == 5 and not any(r.failure for r in rows)}


@pytest.mark.parametrize("measured", [DEFAULT, EVERYTHING], ids=["default", "all"])
@pytest.mark.parametrize("bits", WIDTHS)
def test_the_tables_hold_every_method_at_every_width(measured: list[Row], bits: str) -> None:
    found = complete(measured, bits)
    assert set(found) >= METHODS
    for method, rows in found.items():
        assert f"`{method}` {line_of(rows)}" in (DOCS / "results.md").read_text()


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_rows_with_losses_by_graph_and_values_are_as_good_within_their_error(bits: str) -> None:
    rows, before = rows_of(LOSSES, "q-hyvit", bits), rows_of(DEFAULT, "q-hyvit", bits)
    assert f"| **{bits}** `q-hyvit` {line_of(rows)}" in (DOCS / "results.md").read_text()
    assert abs(mean(r.drop for r in rows) - mean(r.drop for r in before)) < 0.06


@pytest.mark.parametrize("bits", ["W8A8", "W6A6"])
def test_so_does_the_table_of_the_stress_set(bits: str) -> None:
    found = complete(EVERYTHING, bits, stressed=True)
    assert set(found) >= METHODS
    for method, rows in found.items():
        assert f"`{method}` {line_of(rows)}" in (DOCS / "results.md").read_text()


def first(rows: list[Row], bits: str, stressed: bool = False) -> str:
    """The method of the highest mean top-1."""
    means = {name: mean(r.top1 for r in found) for name, found in complete(rows, bits, stressed).items()}
    return max(means, key=lambda name: means[name])


@pytest.mark.parametrize("bits", ["W6A6", "W5A5", "W4A8"])
def test_no_other_method_has_a_higher_mean_below_8_bits(bits: str) -> None:
    assert first(DEFAULT, bits) == "q-hyvit"


@pytest.mark.parametrize(("bits", "stressed"), [("W5A5", False), ("W4A8", False), ("W8A8", True), ("W6A6", True)])
def test_nor_with_everything_in_integer_but_for_8_and_6_bits(bits: str, stressed: bool) -> None:
    assert first(EVERYTHING, bits, stressed) == "q-hyvit"


@pytest.mark.parametrize("measured", [DEFAULT, EVERYTHING], ids=["default", "all"])
@pytest.mark.parametrize("bits", WIDTHS)
def test_no_other_method_leaves_more_answers_as_they_are(measured: list[Row], bits: str) -> None:
    agreements = {name: mean(r.agreement for r in rows) for name, rows in complete(measured, bits).items()}
    assert max(agreements, key=lambda name: agreements[name]) == "q-hyvit"


CHOICES = ("", *(f" seed {seed}" for seed in range(1, 5)))
"""Of calibration images, as rows name them."""


def over_choices(rows: list[Row], method: str, bits: str) -> list[list[Row]]:
    """The rows of a method for each choice of calibration images."""
    found = [rows_of(rows, f"{method}{choice}", bits) for choice in CHOICES]
    assert all(len(each) == 5 for each in found)
    return found


@pytest.mark.parametrize(
    ("measured", "bits", "methods"),
    [
        (DEFAULT, "W8A8", {"minmax", "mse", "repq-vit", "ptq4vit"}),
        (EVERYTHING, "W8A8", {"minmax", "mse"}),
        (EVERYTHING, "W6A6", {"mse"}),
    ],
    ids=["default", "all", "all at 6 bits"],
)
def test_over_five_choices_of_images_no_other_method_has_a_higher_mean(measured: list[Row], bits: str, methods: set[str]) -> None:
    """Where one choice does not tell methods apart: of those that were measured with five, which are the nearest ones."""
    means = {name: mean(r.top1 for rows in over_choices(measured, name, bits) for r in rows) for name in methods | {"q-hyvit"}}
    assert max(means, key=lambda name: means[name]) == "q-hyvit"


@pytest.mark.parametrize(
    ("measured", "bits", "placement", "method", "name"),
    [
        *((DEFAULT, "W8A8", "default", m, f"`{m}`") for m in ("minmax", "mse", "repq-vit", "ptq4vit", "q-hyvit")),
        (DEFAULT, "W8A8", "default", "q-hyvit balanced:0", "`q-hyvit`, `balanced:0`"),
        *((EVERYTHING, "W8A8", "`all`", m, f"`{m}`") for m in ("minmax", "mse", "q-hyvit")),
        (DEFAULT, "W6A6", "default", "q-hyvit", "`q-hyvit`"),
        *((EVERYTHING, "W6A6", "`all`", m, f"`{m}`") for m in ("mse", "q-hyvit")),
    ],
)
def test_the_table_of_the_choices_is_what_was_measured(measured: list[Row], bits: str, placement: str, method: str, name: str) -> None:
    found = over_choices(measured, method, bits)
    drops = [mean(r.drop for r in rows) for rows in found]
    largest, agreement = max(r.drop for rows in found for r in rows), mean(r.agreement for rows in found for r in rows)
    cells = [*(f"{drop:.2f}" for drop in drops), f"{mean(drops):.2f}", f"{largest:.2f}", f"{agreement:.1f}"]
    assert f"| {bits} | {placement} | {name} | {' | '.join(cells)} |" in (DOCS / "results.md").read_text()


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize(("method", "name"), [("q-hyvit", "default"), ("q-hyvit balanced:0", "`--placement balanced:0`")])
def test_the_table_of_what_placement_buys_is_what_was_measured(bits: str, method: str, name: str) -> None:
    rows = rows_of(DEFAULT, method, bits)
    drops = [r.drop for r in rows]
    cells = f"{mean(drops):.2f} | {max(drops):.2f} | {mean(r.agreement for r in rows):.1f} | {mean(r.coverage for r in rows):.1f} %"
    assert len(rows) == 5
    assert f"| {bits}, {name} | {cells} |" in (DOCS / "results.md").read_text()


@pytest.mark.parametrize(("bits", "most", "largest"), [("W8A8", 0.1, 0.3), ("W6A6", 1.0, 2.0)])
def test_every_choice_of_images_gives_the_same_verdict(bits: str, most: float, largest: float) -> None:
    """By default: what the five networks lose on average, and each of them."""
    for rows in over_choices(DEFAULT, "q-hyvit", bits):
        assert mean(r.drop for r in rows) <= most
        assert max(r.drop for r in rows) <= largest


def test_stress_leaves_the_float_networks_as_they_are() -> None:
    plain, stressed = ({r.model.removesuffix(STRESSED): r.top1 for r in rows_of(EVERYTHING, FLOAT, "", s)} for s in (False, True))
    assert len(plain) == 5
    assert plain == stressed
