"""What the code imports is what pyproject.toml declares, and the other way round."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = {"converter", "models", "runtime_tests", "tools"}
PROJECTS = {"PIL": "pillow", "google": "protobuf"}
"""Where the name that is imported is not that of the project."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
METADATA = PROJECT["project"]
EVERYTHING = {"always": METADATA["dependencies"], **METADATA["optional-dependencies"]}
"""Requirements by when they are installed."""

GROUPS = PROJECT["dependency-groups"]
FOR_TESTS = [text for group in GROUPS.values() for text in group if isinstance(text, str)]  # what is no text includes another group


def declared(requirements: Iterable[str]) -> set[str]:
    return {re.split(r"[^\w.-]", text)[0].lower() for text in requirements}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def imported(*folders: str) -> set[str]:
    """Projects that the modules of these folders need, without what only their tests do."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    modules = [path for path in paths if not path.name.endswith("_test.py") and path.name != "conftest.py" and "testing" not in path.parts]
    tops = {name.split(".")[0] for path in modules for name in imports(path)} - sys.stdlib_module_names - OWN
    return {PROJECTS.get(top, top.replace("_", "-")) for top in tops}


@pytest.mark.parametrize(("when", "folders"), [("always", ["converter"]), ("models", ["models"]), ("plots", ["runtime_tests", "tools"])])
def test_what_is_imported_is_declared_and_what_is_declared_imported(when: str, folders: list[str]) -> None:
    there_anyway = set() if when == "always" else declared(EVERYTHING["always"])
    there_anyway |= declared(FOR_TESTS) if when == "plots" else set()  # where tools run, tests do too
    assert imported(*folders) - there_anyway == declared(EVERYTHING[when])


def test_every_project_has_the_version_that_was_tested() -> None:
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line}
    assert {name for requirements in EVERYTHING.values() for name in declared(requirements)} <= pinned
