"""Hooks of MkDocs: pages that are made when the site is built, so that nothing stands in two places.

* ``index.md`` is the README.
* ``api.md`` is the reference of the public names, made of their docstrings.
* ``measured/index.md`` lists the tables of that folder, to which pages link.
"""

from __future__ import annotations

import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import converter
from tools.docs.pages import ROOT

__all__ = ["on_files", "on_page_content", "reference", "start_page", "tables"]

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(?=<code>)")
_FIRST = ("convert", "Options", "Report", "errors")


def on_files(files: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """Add the pages."""
    made = {"index.md": start_page((ROOT / "README.md").read_text()), "api.md": reference(), "measured/index.md": tables()}
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Take off the roles of names in docstrings, such as ``:class:``."""
    return _ROLE.sub("", html)


def start_page(readme: str) -> str:
    """The README, as it would link from within ``docs``."""
    return readme.replace("](docs/", "](")


def tables() -> str:
    """A list of the files in ``docs/measured``."""
    names = sorted(path.name for path in (ROOT / "docs" / "measured").iterdir())
    return "\n".join(["# Measured tables", "", *(f"* [{name}]({name})" for name in names)]) + "\n"


def reference() -> str:
    """A page with a directive for each public name; the most used come first."""
    names = [*_FIRST, *sorted(name for name in converter.__all__ if name not in _FIRST and not name.startswith("__"))]
    return "\n\n".join(["# Python API", *(f"::: converter.{name}" for name in names)]) + "\n"
