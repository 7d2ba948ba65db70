"""The templates, from a clean clone to the comment, with a Git server on the loopback. Only what they install is there already."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest
import yaml

from converter.testing.models import hybrid_model
from runtime_tests.ci.__main__ import main
from runtime_tests.ci.comment import MARK
from runtime_tests.ci.testing.git_server import git, git_server
from runtime_tests.ci.testing.pipeline import TEMPLATES, github, gitlab
from runtime_tests.emulation.environment import environment
from runtime_tests.emulation.setup import missing_steps

WORKFLOW = ".github/workflows/int8.yml"
BASELINE = '\n[baseline]\nfile = "baseline.json"\nfigures = ["coverage", "sqnr_db"]\ntolerance = 0.01\n'
PLAIN = {"INSTRUCTIONS": ""}


def test_the_comment_is_found_by_its_mark() -> None:
    assert MARK in (TEMPLATES / "github.yml").read_text()


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_the_templates_are_yaml(name: str) -> None:
    assert isinstance(yaml.safe_load((TEMPLATES / f"{name}.yml").read_text()), dict)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with git_server(tmp_path) as address:
        yield address


@pytest.fixture
def team(server: str, tmp_path: Path) -> Path:
    """A developer's clone of a new repository, with a model, gates and the workflow, pushed."""
    git(tmp_path, "clone", "--quiet", server, "team")
    folder = tmp_path / "team"
    git(folder, "checkout", "--quiet", "-b", "main")
    (folder / "int8").mkdir()
    (folder / "int8" / "gates.toml").write_text("min_sqnr_db = 15\n")
    onnx.save(hybrid_model(), folder / "model.onnx")
    (folder / WORKFLOW).parent.mkdir(parents=True)
    quicker(TEMPLATES / "github.yml", folder / WORKFLOW)
    pushed(folder, "A model")
    return folder


def quicker(template: Path, copy: Path) -> Path:
    """A copy that converts by a simpler method, of fewer samples: what CI makes of the result is the same."""
    text = template.read_text()
    assert text.count(" --plan-out ") == 1
    copy.write_text(text.replace(" --plan-out ", " --method mse --samples 4 --plan-out "))
    return copy


def pushed(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    git(folder, "push", "--quiet", "origin", "main")


def cloned(server: str, name: str, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "--quiet", server, name)
    return tmp_path / name


def points(clone: Path) -> int:
    """How many versions each chart of the history shows."""
    root = ElementTree.parse(clone / "build" / "history.svg").getroot()
    charts = [len(group.findall("{*}circle")) for group in root.iter("{http://www.w3.org/2000/svg}g")]
    assert len(set(charts)) == 1
    return charts[0]


@pytest.mark.slow
def test_from_the_first_run_to_a_change_that_is_accepted(team: Path, server: str, tmp_path: Path) -> None:
    steps = ["convert", "validate", "report"]
    first = cloned(server, "first", tmp_path)
    assert github(first / WORKFLOW, first, PLAIN) == (0, steps)
    said = (first / "summary.md").read_text()
    assert said == (first / "build" / "comment.md").read_text()
    assert "✅ sound, all gates kept" in said and "There is no baseline yet." in said

    # the baseline, by one command
    assert main(["accept", str(first / "build" / "int8.json"), str(team / "int8" / "baseline.json")]) == 0
    with (team / "int8" / "gates.toml").open("a") as gates:
        gates.write(BASELINE)
    pushed(team, "A baseline")
    second = cloned(server, "second", tmp_path)
    assert github(second / WORKFLOW, second, PLAIN) == (0, steps)
    assert "| same | ✅ ≥ " in (second / "build" / "comment.md").read_text()
    assert points(second) == 2  # the baseline, and now

    # less in integer
    workflow = (team / WORKFLOW).read_text()
    (team / WORKFLOW).write_text(workflow.replace("build/int8.onnx ${calib:-}", "build/int8.onnx --exclude Conv ${calib:-}"))
    pushed(team, "Convolutions in float")
    third = cloned(server, "third", tmp_path)
    assert github(third / WORKFLOW, third, PLAIN) == (6, steps)
    said = (third / "build" / "comment.md").read_text()
    assert "❌ 1 gate missed" in said and "* baseline coverage: coverage is " in said and "worse | ❌ ≥ " in said

    # as it is meant to be
    assert main(["accept", str(third / "build" / "int8.json"), str(team / "int8" / "baseline.json")]) == 0
    pushed(team, "A slower model, on purpose")
    fourth = cloned(server, "fourth", tmp_path)
    assert github(fourth / WORKFLOW, fourth, PLAIN) == (0, steps)
    assert points(fourth) == 3
    assert "A slower model, on purpose" in (fourth / "build" / "history.svg").read_text()


@pytest.mark.slow
def test_the_template_for_gitlab(team: Path, server: str, tmp_path: Path) -> None:
    clone = cloned(server, "clone", tmp_path)
    template = quicker(TEMPLATES / "gitlab.yml", tmp_path / "gitlab.yml")
    assert gitlab(template, clone, PLAIN) == 0
    assert "✅ sound, all gates kept" in (clone / "build" / "comment.md").read_text()
    (clone / "int8" / "gates.toml").write_text("min_coverage = 99.9\n")
    assert gitlab(template, clone, PLAIN) == 6
    assert "❌ 1 gate missed" in (clone / "build" / "comment.md").read_text()


@pytest.mark.slow
def test_a_model_that_cannot_be_converted_is_told_in_the_comment(team: Path, server: str, tmp_path: Path) -> None:
    (team / "model.onnx").write_bytes(b"noise")
    pushed(team, "Noise")
    clone = cloned(server, "clone", tmp_path)
    assert github(clone / WORKFLOW, clone, PLAIN) == (3, ["convert", "report"])
    assert "❌ not validated, see the log" in (clone / "summary.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_steps(environment())), reason="the ARM64 emulation is not set up (python -m tools.arm64.setup)")
def test_instructions_are_gated_as_the_template_stands(team: Path, server: str, tmp_path: Path) -> None:
    (team / "int8" / "gates.toml").write_text("max_instructions_a76 = 0.001\n")
    shutil.copy(TEMPLATES / "github.yml", team / WORKFLOW)
    pushed(team, "A limit")
    clone = cloned(server, "clone", tmp_path)
    assert github(clone / WORKFLOW, clone, {"BRIDGEQUANT_ARM64": str(environment().folder)})[0] == 6
    assert "* max\\_instructions\\_a76: instructions\\_a76 is " in (clone / "build" / "comment.md").read_text()
