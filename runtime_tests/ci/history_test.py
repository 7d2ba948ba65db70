from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from converter.errors import UsageError
from runtime_tests.ci.__main__ import main
from runtime_tests.ci.baseline import Version, baseline_text, versions
from runtime_tests.ci.history import history_svg, points
from runtime_tests.ci.testing.git_server import git

SVG = "{http://www.w3.org/2000/svg}"


def written(path: Path, **figures: float) -> Path:
    models = {"int8": {"file": "int8.onnx", "sha256": "00"}}
    path.write_text(json.dumps({"figures": figures, "models": models, "machine": {"onnxruntime": "1.32.0"}, "latency": {"ratio": 1.0}}))
    return path


def test_a_baseline_keeps_what_does_not_depend_on_the_day(tmp_path: Path) -> None:
    path = written(tmp_path / "int8.json", coverage=95.0, latency_ratio=1.7, memory_mb=80.0, size_mb=2.5)
    kept = json.loads(baseline_text(path))
    assert kept["figures"] == {"coverage": 95.0, "size_mb": 2.5}
    assert set(kept) == {"figures", "models", "machine"}


def test_results_without_any_such_figure_are_no_baseline(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no figure to keep"):
        baseline_text(written(tmp_path / "int8.json", latency_ratio=1.7))


def test_accepting_says_what_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline = tmp_path / "baseline.json"
    assert main(["accept", str(written(tmp_path / "a.json", size_mb=2.0)), str(baseline)]) == 0
    assert "size_mb: 2\n" in capsys.readouterr().out
    assert main(["accept", str(written(tmp_path / "b.json", size_mb=1.0)), str(baseline)]) == 0
    assert "size_mb: 2 to 1, -50.00 %, better\n" in capsys.readouterr().out
    assert json.loads(baseline.read_text())["figures"] == {"size_mb": 1.0}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A baseline in three versions, the second of which is damaged."""
    git(tmp_path, "init", "--quiet")
    baseline = tmp_path / "baseline.json"
    for message, text in (("First", '{"figures": {"size_mb": 2.0}}'), ("Oops", "<<<<<<<"), ("A <b> & c", '{"figures": {"size_mb": 1.0}}')):
        baseline.write_text(text)
        git(tmp_path, "add", "--all")
        git(tmp_path, "commit", "--quiet", "--message", message)
    return baseline


def test_the_history_is_that_of_the_committed_file(repository: Path) -> None:
    found = versions(repository)
    assert [(each.subject, each.figures) for each in found] == [("First", {"size_mb": 2.0}), ("A <b> & c", {"size_mb": 1.0})]
    assert all(len(each.commit) == 10 and len(each.day) == len("2026-11-30") for each in found)


def test_a_file_outside_of_git_has_no_history(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Git does not tell the history: .*not a git repository"):
        versions(written(tmp_path / "baseline.json", size_mb=1.0))


def test_points_go_from_left_to_right_and_the_highest_is_on_top() -> None:
    first, missing, last = points([1.0, None, 3.0])
    assert first is not None and last is not None and missing is None
    assert first[0] < last[0] and first[1] > last[1]
    ((_, level),) = {place for place in points([2.0]) if place is not None}
    assert last[1] < level < first[1]


def test_the_picture_is_xml_whatever_a_message_says(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "history.svg"
    now = written(tmp_path / "now.json", size_mb=1.5, coverage=90.0)
    assert main(["history", str(repository), "--now", str(now), "--out", str(out)]) == 0
    root = ElementTree.parse(out).getroot()
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert titles[0] == "90: now"  # of coverage, which no earlier version has
    assert [str(title).partition(": ")[0] for title in titles[1:]] == ["2", "1", "1.5"]
    assert "A <b> & c" in str(titles[2])


def test_one_version_is_a_picture_too() -> None:
    ElementTree.fromstring(history_svg([Version("abc", "2026-11-30", "First", {"size_mb": 1.0})], ["size_mb"]))


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--figure", "speed"], "no version has a figure 'speed'"), (["--out", "/nowhere/history.svg"], "the folder of --out does not exist")],
)
def test_what_cannot_be_drawn_is_refused(words: list[str], said: str, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = [] if "--out" in words else ["--out", str(repository.with_name("history.svg"))]
    assert main(["history", str(repository), *words, *out]) == 2
    assert said in (told := capsys.readouterr().err) and len(told.splitlines()) <= 3
