"""The page stands alone, holds what was measured, and cannot be broken by names."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from converter.diagnosis.diagnose import MANY_TENSORS
from converter.report_page.page import diagnosis_columns, fill
from converter.report_page.testing.diagnoses import made_up
from converter.report_page.testing.payloads import payload_of


class Elements(HTMLParser):
    """Tags, and what stands in each script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data


def data_of(page: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Elements(page).scripts[0])
    return data


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = fill("title", payload_of(made_up(10)))
    addresses = [v for _, attributes in Elements(page).tags for k, v in attributes.items() if k in ("src", "href", "action", "srcset")]
    assert set(addresses) <= {"data:,", "#tensors"}
    assert re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", page) is None
    assert "default-src 'none'" in page, "and the browser is told to refuse it"


def test_figures_stand_in_columns_and_repeated_texts_once() -> None:
    found = made_up(6)
    columns = diagnosis_columns(found)
    tensors, texts = columns["tensors"], columns["texts"]
    assert {len(column) for column in tensors.values()} == {6}
    assert [texts[n] for n in tensors["type"]] == [t.op_type for t in found.tensors]
    assert tensors["local"] == [20.0, 23.7, 27.4, None, 34.8, 38.5]
    assert tensors["scale"] == [0.03, 0.03, 0.03, None, 0.03, 0.03]
    assert tensors["histogram"][0] == [-7, 9, 0, 0, list(found.tensors[0].histogram.counts)]  # type: ignore[union-attr]
    assert len(texts) == len(set(texts))


def test_each_operator_of_the_chain_points_at_its_tensor() -> None:
    columns = diagnosis_columns(made_up(60))
    assert [i for s in columns["segments"] for i in s["tensors"]] == list(range(60))
    assert [s["bridge"] for s in columns["segments"]] == ["", "round trip", ""]


@pytest.mark.parametrize(
    "name", ["</script><script>alert(1)</script>", "<!--<script>", "%%DATA%%", "\u2028\u2029", "\ud800", 'a"b\\c', "<img src=x>"]
)
def test_no_name_ends_the_data_or_changes_the_page(name: str) -> None:
    plain = Elements(fill("plain", payload_of(made_up(3))))
    page = fill(name, payload_of(made_up(3, prefix=name)))
    assert [tag for tag, _ in Elements(page).tags] == [tag for tag, _ in plain.tags]
    stored = data_of(page)["tensors"]["name"][0]
    assert stored == made_up(3, prefix=name.encode("utf-8", "replace").decode()).tensors[0].name
    page.encode()


def test_numbers_that_json_lacks_are_left_open() -> None:
    page = fill("title", payload_of(made_up(1)) | {"bars": [{"before": float("inf"), "after": float("nan")}]})
    assert data_of(page)["bars"] == [{"before": None, "after": None}]


def test_three_thousand_tensors_take_less_than_two_megabytes() -> None:
    found = made_up(3000, bins=48, prefix="/network/stages.2/stages.2.1/transformer/transformer.0/blocks.")
    assert len(found.tensors) > MANY_TENSORS, "so that their histograms have 48 bins"
    assert len(fill("title", payload_of(found)).encode()) < 2_000_000


def test_the_same_figures_give_the_same_bytes() -> None:
    assert fill("title", payload_of(made_up(40))) == fill("title", payload_of(made_up(40)))
