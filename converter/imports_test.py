"""Imports run one way, from the story to the ground; tests share code through testing folders only; folders stay small."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

ORDER = (
    *(
        "errors",
        "progress",
        "flag",
        "system",
        "distribute",
        "quantization",
        "graph",
        "runtime",
        "targets",
        "torch_backend",
        "transforms",
        "load",
    ),
    *("canonicalise", "calibration", "plan", "forms", "sensitivity", "methods", "partition", "options", "planning", "emit", "verify"),
    *("diagnosis", "budget", "report", "provenance", "report_page", "stages", "pipeline"),
    *("compare", "doctor", "__init__", "cli", "__main__"),
)
"""Folders and modules of converter/. Each imports only those before it."""

PACKAGES = ("converter", "models", "runtime_tests", "tools")
"""Each imports only those before it."""

MOST_MODULES = 13


@cache
def sources() -> dict[str, ast.Module]:
    """Every file by its path from the root, parsed."""
    paths = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def for_tests(path: str) -> bool:
    """Tests, what they share, and the campaign of tests that draws its cases at random."""
    parts = Path(path).parts
    return path.endswith("_test.py") or parts[-1] == "conftest.py" or "testing" in parts or parts[:2] == ("tools", "fuzz")


def imports(tree: ast.Module) -> Iterator[str]:
    """Full names of what a file imports anywhere, but for types alone and the version, which is a constant."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name != "__version__")
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            waiting.extend(ast.iter_child_nodes(node))


def part(name: str) -> str:
    """Folder or module of converter/ that a full name belongs to."""
    inside = name.split(".")[1:2]
    return inside[0] if inside and inside[0] in ORDER else "__init__"


def test_each_part_of_the_converter_imports_only_those_before_it() -> None:
    files = {path: Path(path).parts[1].removesuffix(".py") for path in sources() if path.startswith("converter/") and not for_tests(path)}
    assert set(files.values()) == set(ORDER), "every folder and module has its place in the order"
    wrong = []
    for path, here in files.items():
        others = {part(name) for name in imports(sources()[path]) if name.split(".")[0] == "converter"} - {here}
        wrong += [f"{path} imports {other}" for other in others if ORDER.index(other) > ORDER.index(here)]
    assert wrong == []


def test_each_package_imports_only_those_before_it_and_none_a_testing_folder() -> None:
    wrong = []
    for path, tree in sources().items():
        if not for_tests(path):
            later = PACKAGES[PACKAGES.index(Path(path).parts[0]) + 1 :]
            wrong += [f"{path}: {name}" for name in imports(tree) if name.split(".")[0] in later or ".testing." in name]
    assert wrong == []


def test_nothing_outside_tools_imports_tools() -> None:
    """Not even a test: what two packages need stands where both may import it."""
    others = ((path, name) for path, tree in sources().items() if not path.startswith("tools/") for name in imports(tree))
    assert [f"{path}: {name}" for path, name in others if name.split(".")[0] == "tools"] == []


def test_no_test_file_is_imported() -> None:
    modules = {path.removesuffix(".py").replace("/", ".") for path in sources() if path.endswith(("_test.py", "conftest.py"))}
    imported = ((path, name) for path, tree in sources().items() for name in imports(tree))
    wrong = [f"{path}: {name}" for path, name in imported if {name, name.rpartition(".")[0]} & modules]
    assert wrong == []


def test_no_folder_has_too_many_modules() -> None:
    counts = Counter(str(Path(path).parent) for path in sources() if not path.endswith(("__.py", "_test.py", "conftest.py")))
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}
