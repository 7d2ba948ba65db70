"""The site is built without a warning, and has what its hooks add: the start page, and the reference of every public name."""

from __future__ import annotations

from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

import converter
from tools.docs.hooks import on_page_content, reference, start_page, tables
from tools.docs.pages import ROOT, pages

CONFIGURATION = ROOT / "tools" / "docs" / "mkdocs.yml"


def test_the_start_page_links_from_where_it_stands() -> None:
    assert start_page("[usage](docs/usage.md) and [a table](#top)") == "[usage](usage.md) and [a table](#top)"


def test_the_reference_has_every_public_name_once() -> None:
    names = [line.removeprefix("::: converter.") for line in reference().splitlines() if line.startswith(":::")]
    assert names[0] == "convert" and sorted(names) == sorted(set(converter.__all__) - {"__version__"})


def test_measured_tables_are_listed() -> None:
    assert "* [real.csv](real.csv)" in tables().splitlines()


def test_roles_of_docstrings_are_taken_off() -> None:
    assert on_page_content("see :mod:<code>a.b</code>, at 10:30") == "see <code>a.b</code>, at 10:30"


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    configuration = load_config(str(CONFIGURATION), site_dir=str(tmp_path / "site"))
    configuration.plugins.on_startup(command="build", dirty=False)
    build(configuration)  # strict: it fails where a link or an anchor leads nowhere, or a page is missing
    api = (tmp_path / "site" / "api.html").read_text()
    for name in ("convert", "Options", "Report", "SearchParts"):
        assert f'id="converter.{name}"' in api
    assert "Convert a float ONNX model to an int8 QDQ model." in api and ":class:" not in api
    missing = [page.stem for page in pages()[1:] if not (tmp_path / "site" / f"{page.stem}.html").exists()]
    assert missing == []


def test_every_page_is_in_the_navigation() -> None:
    told = CONFIGURATION.read_text()
    assert [page.name for page in pages()[1:] if f" {page.name}\n" not in told] == []
