"""The page in a browser: what a reader sees, sorts, filters, chooses and types, on a desk and on a phone, by day and by night."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from converter.budget.records import Budget, Point
from converter.compare.page import comparison_page
from converter.compare.records import Comparison, OutputFigures, Side
from converter.report_page.page import budget_curve, fill
from converter.report_page.testing.browser import Browser, Tab, find_browser, open_browser
from converter.report_page.testing.diagnoses import made_up
from converter.report_page.testing.payloads import payload_of

PROGRAM = find_browser()

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome on the path (Debian: apt-get install chromium)")

NAMES = "#body .line > div:first-child"
BUDGET = Budget(
    metric="top1",
    unit="points",
    data="960 images of sample.zip",
    limit=0.5,
    float_score=70.5,
    points=(
        Point("price 0", 0.42, 0.01, 90, 68.5, 2.0),
        Point("price 3", 0.45, 0.004, 84),
        Point("price 20", 0.5, 0.002, 80, 70.1, 0.4),
        Point("price 1e+05", 0.97, 0.0, 3, 70.6, -0.1),
    ),
    chosen=2,
    met=True,
    evaluations=3,
)
PHONE = {"width": 390, "height": 844, "phone": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert PROGRAM is not None
    with open_browser(PROGRAM) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


def saved(folder: Path, tensors: int) -> Path:
    path = folder / f"{tensors}.html"
    if not path.exists():
        path.write_text(fill("title", payload_of(made_up(tensors))))
    return path


@pytest.fixture
def tab(browser: Browser, folder: Path) -> Iterator[Tab]:
    """A page of 100 tensors; nothing may go wrong on it."""
    found = browser.open(saved(folder, 100))
    yield found
    assert found.complaints == []


def column(tab: Tab, number: int) -> list[str]:
    """What is drawn of a column, from the top."""
    return tab.texts(f"#body .line > div:nth-child({number})")


def header(tab: Tab, name: str) -> int:
    """The number of a column, from 1."""
    return tab.texts("#head > div").index(name) + 1


def chosen(tab: Tab) -> str:
    return tab.text("#detail .name")


def selected_row(tab: Tab) -> str:
    return str(tab.run("document.querySelector('#body .line[aria-selected=true] > div').title"))


# What is seen


@pytest.mark.parametrize("tensors", [1, 10, 100, 3000])
@pytest.mark.parametrize("window", [{}, PHONE, {"dark": True}], ids=["desk", "phone", "dark"])
def test_it_opens_without_complaint_and_nothing_sticks_out(browser: Browser, folder: Path, tensors: int, window: dict[str, Any]) -> None:
    tab = browser.open(saved(folder, tensors), **window)
    assert tab.complaints == []
    assert tab.run("document.documentElement.dataset.ready") == "true"
    assert tab.run("document.documentElement.scrollWidth") == window.get("width", 1360)
    assert tab.text("#count") == f"{tensors} tensors"


def test_where_the_bytes_are_is_a_bar_and_a_list(tab: Tab) -> None:
    widths = tab.run("[...document.querySelectorAll('#bytes .parts i')].map(part => part.style.width)")
    assert [float(width.rstrip("%")) for width in widths] == [60, 30, 5, 5]
    of_bar = tab.run("[...document.querySelectorAll('#bytes .parts i')].map(part => getComputedStyle(part).backgroundColor)")
    of_words = tab.run("[...document.querySelectorAll('#bytes .legend i')].map(mark => getComputedStyle(mark).backgroundColor)")
    assert of_words == of_bar and len(set(of_bar)) == 4, "the words have the colours of the bar"
    assert "numbers in float 600.0 kB (30.0 %)" in tab.text("#bytes") and "1 weight of layers in float" in tab.text("#bytes")
    assert tab.texts("#bytes li") == ["512.0 kB in float: Gemm head, for accuracy", "512 B in float: Conv stem"]


@pytest.mark.parametrize("window", [{}, PHONE], ids=["desk", "phone"])
def test_the_curve_of_a_budget_shows_what_was_evaluated_and_what_was_taken(browser: Browser, folder: Path, window: dict[str, Any]) -> None:
    path = folder / "budget.html"
    path.write_text(fill("title", payload_of(made_up(10)) | {"budget": budget_curve(BUDGET)}))
    tab = browser.open(path, **window)
    assert tab.complaints == []
    assert tab.run("document.documentElement.scrollWidth") == window.get("width", 1360)
    assert tab.run("document.querySelectorAll('#curve circle').length") == 3
    assert tab.text("#points .taken td") == "price 20, taken" and "allowed: 0.5" in tab.text("#curve")
    assert "drop 0.4 of at most 0.5 points" in tab.text("#budget-lead")


def test_without_a_budget_there_is_no_curve(tab: Tab) -> None:
    assert tab.run("document.querySelector('#budget').hidden")


def test_of_many_tensors_only_the_visible_rows_are_drawn(browser: Browser, folder: Path) -> None:
    tab = browser.open(saved(folder, 3000))
    assert 0.0 < tab.processor_seconds() < 1.0, "to open it"
    assert 10 < tab.run("document.querySelectorAll('#body .line').length") < 60
    tab.run("document.querySelector('#grid').scrollTop = 1e9")
    tab.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert tab.run("document.querySelector('#body .line:last-child > div').title") == made_up(3000).tensors[-1].name


def test_the_summary_says_what_is_gained_lost_and_next(tab: Tab) -> None:
    gained, lost, following = tab.texts("#cards .card")
    assert (
        "40 %" in gained
        and "of the predicted instructions of float" in gained
        and "4.00 MB → 2.00 MB" in gained
        and "94.0% of the multiply-accumulates" in gained
    )
    assert "29.9 dB" in lost and "logits" in lost and "100.0 %" in lost
    assert "Measure its accuracy." in following
    assert tab.texts("#warnings .warning") == ["a warning"] and "A note." in tab.text("#footer")


def test_bridge_blocks_are_marked_and_operators_coloured_by_error_or_by_how_they_run(tab: Tab) -> None:
    assert tab.texts(".segment.bridge h3 b") == ["Bridge block 1"]
    assert tab.run("document.querySelectorAll('.cell[data-tensor]').length") == 100
    colours = "[...document.querySelectorAll('.cell[data-tensor]')].map((c) => c.style.getPropertyValue('--c'))"
    assert tab.run(colours)[0] == "var(--e4)", "10.0 dB"
    tab.click("input[value=runs]")
    assert set(tab.run(colours)) == {"var(--integer)", "var(--float)"}
    assert "integer" in tab.text("#legend") and "below 10" not in tab.text("#legend")


def test_the_chain_says_what_its_colours_and_boxes_mean(browser: Browser, folder: Path, tab: Tab) -> None:
    assert tab.text("#legend").startswith("SQNR against float:")
    assert "A blue box is a bridge block" in tab.text("#about-bridges") and not tab.run("document.querySelector('#about-bridges').hidden")
    without = browser.open(saved(folder, 1))
    assert without.run("document.querySelector('#about-bridges').hidden"), "there is none"


def test_the_worst_stand_first_and_lead_to_their_numbers(tab: Tab) -> None:
    assert tab.run("document.querySelectorAll('#worst li').length") == 10
    assert "Channel 10 is 11 times wider than the median of 64 channels" in " ".join(tab.texts("#worst li p"))
    assert "adds 1.0e-4 to the loss, " in tab.text("#worst li:first-child .nums")
    shares = [float(line.partition("loss, ")[2].partition(" %")[0]) for line in tab.texts("#worst .nums")]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) < 100, "of all hundred tensors"
    assert "Local is the SQNR of rounding one tensor alone" in tab.text("#ranking")
    second = tab.text("#worst li:nth-child(2) button")
    tab.click("#worst li:nth-child(2) button")
    assert chosen(tab) == selected_row(tab) == second


@pytest.mark.parametrize("window", [{}, PHONE], ids=["desk", "phone"])
def test_no_flag_and_no_share_is_cut_by_the_end_of_a_line(browser: Browser, folder: Path, window: dict[str, Any]) -> None:
    tab = browser.open(saved(folder, 100), **window)
    parts = "document.querySelectorAll('.flag, .big b')"
    assert "--exclude" in tab.texts(".flag")
    assert tab.run(f"[...{parts}].filter((e) => e.getClientRects().length !== 1).map((e) => e.innerText)") == []


def test_ranges_names_and_forms_fit_their_columns(tab: Tab) -> None:
    for name in ("tensor", "range", "runs"):
        cells = f"#body .line > div:nth-child({header(tab, name)})"
        assert tab.run(f"[...document.querySelectorAll({cells!r})].filter((e) => e.scrollWidth > e.clientWidth).length") == 0, name


def test_the_histogram_shows_steps_and_what_is_clipped(tab: Tab) -> None:
    tab.click("#worst li:nth-child(2) button")
    assert "0.40 % clipped" in tab.text("#detail .caption")
    red = tab.run("document.querySelectorAll('#detail svg rect').length")
    assert red == 2, "the grid ends before the numbers do, on both sides"
    assert "of 256 steps" in tab.text("#detail svg text:last-child") or "every quantization step" in tab.text("#detail svg text:last-child")
    before = tab.run("document.querySelector('#detail svg path').getAttribute('d')")
    tab.click("#detail input[type=checkbox]")
    assert tab.run("document.querySelector('#detail svg path').getAttribute('d')") != before, "counts as they are"


def test_a_float_tensor_says_why(tab: Tab) -> None:
    tab.click(".cell[data-tensor='3']")
    assert "Not quantized" in tab.text("#detail .caption")
    assert "Why float: cheaper in float on this target" in tab.text("#detail .reason")
    assert "float" in tab.text("#chosen") and made_up(4).tensors[3].operator in tab.text("#chosen")


# What a reader does


@pytest.mark.parametrize("name, first, last", [("local", "20.0", "49.7"), ("accum.", "10.0", "44.9"), ("tensor", None, None)])
def test_sorting(tab: Tab, name: str, first: str | None, last: str | None) -> None:
    place = header(tab, name)
    tab.click(f"#head > div:nth-child({place}) button")
    tab.run("document.querySelector('#grid').scrollTop = 0")
    up = column(tab, place)
    assert tab.run(f"document.querySelector('#head > div:nth-child({place})').getAttribute('aria-sort')") == "ascending"
    if first is not None:
        assert up[0] == first and up == sorted(up, key=float)
    tab.click(f"#head > div:nth-child({place}) button")
    assert tab.run(f"document.querySelector('#head > div:nth-child({place})').getAttribute('aria-sort')") == "descending"
    down = column(tab, place)
    assert last is None or down[0] == last
    assert up[0] != down[0]


def test_costs_and_sensitivities_begin_with_the_largest_and_unknown_ones_come_last(tab: Tab) -> None:
    place = header(tab, "in int")
    tab.click(f"#head > div:nth-child({place}) button")
    assert column(tab, place)[0] == "45.2 k", "456.7 x 99; the tensor behind it is float"
    tab.run("document.querySelector('#grid').scrollTop = 1e9")
    tab.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert column(tab, place)[-1] == "–"


def test_filtering_by_words_kind_operator_form_and_block(tab: Tab) -> None:
    tab.run("document.querySelector('#search').focus()")
    tab.write("softmax blocks.5")
    assert tab.text("#count") == "3 of 100 tensors", "operators 5, 53 and 59"
    tab.click("#clear")
    assert tab.text("#count") == "100 tensors"
    tab.choose("#f-type", "Sigmoid")
    assert tab.text("#count") == "17 of 100 tensors"
    tab.choose("#f-runs", "float")
    assert tab.text("#count") == "8 of 100 tensors"
    tab.click("#clear")
    tab.choose("#f-kind", "measured")
    assert tab.text("#count") == "75 of 100 tensors"
    tab.click("#clear")
    tab.choose("#f-segment", "bridge")
    assert tab.text("#count") == "25 of 100 tensors"


def test_a_filter_that_nothing_fits_says_so(tab: Tab) -> None:
    tab.run("document.querySelector('#search').focus()")
    tab.write("no such tensor")
    assert tab.text("#count") == "0 of 100 tensors" and "No tensor fits" in tab.text("#body")


def test_a_hidden_tensor_is_shown_again_when_it_is_chosen(tab: Tab) -> None:
    tab.choose("#f-type", "Softmax")
    tab.click(".cell[data-tensor='0']")
    assert tab.text("#count") == "100 tensors" and selected_row(tab) == chosen(tab) == made_up(1).tensors[0].name


def test_rows_are_chosen_with_the_mouse(tab: Tab) -> None:
    tab.run("document.querySelector('#grid').scrollTop = 0")
    tab.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    tab.click("#row-4")
    assert chosen(tab) == selected_row(tab) == made_up(5).tensors[4].name
    assert tab.run("document.querySelectorAll('.cell.on').length") == 1


# Without a mouse


def test_keys_move_the_selection(tab: Tab) -> None:
    names = [t.name for t in made_up(100).tensors]
    tab.run("document.querySelector('#grid').focus()")
    for key, place in (("Home", 0), ("ArrowDown", 1), ("PageDown", 11), ("ArrowUp", 10), ("PageUp", 0), ("End", 99)):
        tab.press(key)
        assert chosen(tab) == selected_row(tab) == names[place], key
        assert tab.run("document.querySelector('#grid').getAttribute('aria-activedescendant')") == f"row-{place}"


def test_slash_goes_to_the_filter_and_escape_clears_it(tab: Tab) -> None:
    tab.press("/")
    assert tab.run("document.activeElement.id") == "search"
    tab.write("softmax")
    assert tab.text("#count") == "16 of 100 tensors"
    tab.press("Escape")
    assert tab.text("#count") == "100 tensors" and tab.run("document.activeElement.id") == "grid"


def test_arrows_walk_along_the_chain(tab: Tab) -> None:
    tab.run("document.querySelector('.cell[data-tensor]').focus()")
    tab.press("ArrowRight")
    tab.press("ArrowRight")
    assert tab.run("document.activeElement.dataset.tensor") == "2" and chosen(tab) == made_up(3).tensors[2].name
    assert tab.run("document.querySelectorAll('.cell[data-tensor][tabindex=\"0\"]').length") == 1, "one stop for the tab key"


def test_every_control_has_a_name_for_those_who_do_not_see_it(tab: Tab) -> None:
    controls = "[...document.querySelectorAll('button, input, select')]"
    named = f"{controls}.filter((e) => !(e.getAttribute('aria-label') || e.innerText || e.closest('label')))"
    assert tab.run(f"{named}.map((e) => e.outerHTML)") == []


# Light and dark


def test_it_follows_the_system_until_somebody_chooses(browser: Browser, folder: Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    day, night = (browser.open(saved(folder, 10), dark=dark) for dark in (False, True))
    assert (day.run(background), night.run(background)) == ("rgb(251, 251, 250)", "rgb(20, 23, 26)")
    night.click("#theme")
    assert night.run(background) == "rgb(251, 251, 250)"
    assert night.complaints == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_what_is_behind_it(browser: Browser, folder: Path, dark: bool) -> None:
    """Contrast by WCAG 2.1: 4.5 for text."""
    tab = browser.open(saved(folder, 10), dark=dark)
    weak = tab.run(
        """(() => {
        const light = (c) => { const p = c.match(/[\\d.]+/g).slice(0, 3).map((x) => x / 255)
            .map((x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)); return 0.2126 * p[0] + 0.7152 * p[1] + 0.0722 * p[2]; };
        const behind = (e) => { for (; e; e = e.parentElement) {
            const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$|transparent/.test(c)) return c; } return "rgb(255,255,255)"; };
        return [...document.querySelectorAll("p, h1, h2, h3, b, dt, dd, td, th, label, button, .line > div, .sub, .nums span, #footer")]
            .filter((e) => e.innerText && e.getClientRects().length && !e.classList.contains("dim"))
            .map((e) => { const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
                return [(a + 0.05) / (b + 0.05), e.className, e.tagName, e.innerText.slice(0, 30)]; }).filter(([r]) => r < 4.5); })()"""
    )
    assert weak == []


# Comparisons


def test_a_comparison_has_the_figures_of_both(browser: Browser, folder: Path) -> None:
    sides = [
        Side(n, "model", 2_000_000 + 1000 * i, None, 0.9, (OutputFigures("logits", 30.0 - i),), made_up(100)) for i, n in enumerate("AB")
    ]
    path = folder / "comparison.html"
    path.write_text(comparison_page(Comparison(sides[0], sides[1], "float.onnx", "32 images", 8, "arm64", "instructions")))
    tab = browser.open(path)
    assert {"was", "change"} <= set(tab.texts("#head > div"))
    assert tab.run("document.querySelectorAll('#cards .big').length") == 1, "a file that is no smaller gains nothing"
    assert "accumulated SQNR, was" in tab.texts("#detail dt")
    assert set(column(tab, header(tab, "change"))) == {"0.0"}
    assert "30.0" in tab.text("#cards .card:nth-child(2)") and "29.0 dB" in tab.text("#cards .card:nth-child(2)")
    assert tab.run("document.documentElement.scrollWidth") == 1360
    assert tab.complaints == []
