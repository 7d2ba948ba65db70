"""The whole command on a small model: what it writes, and how it ends."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

from runtime_tests import command_line
from runtime_tests.command_line import main
from runtime_tests.processes import OLDEST, Memory
from runtime_tests.testing.files import Files, MakeFiles, damage_head, remove_clip

QUICK = ["--samples", "2", "--seconds", "0"]


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what starts processes."""
    monkeypatch.setattr(command_line, "measure_memory", lambda model_pair: Memory(1, 2, 3_000_000, 4, 5))
    monkeypatch.setattr(command_line, "OLDEST", Path("/nowhere"))


def run(files: Files, *flags: str | Path) -> int:
    return main([str(word) for word in (files.floats, files.int8, *QUICK, *flags)])


def test_everything_is_printed_and_written(make_files: MakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = make_files((8, 5))
    assert run(files, "--json", tmp_path / "out.json", "--junit", tmp_path / "out.xml") == 0
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["figures"]["coverage"] == 100.0
    assert content["figures"]["parity_db"] > 40
    assert content["models"]["int8"]["target"] == "arm64"
    assert content["confinement"]["escapes"] == []
    assert content["memory"]["int8_peak"] > content["memory"]["process"] > 1e7
    assert ("version_agreement" in content["figures"]) == OLDEST.is_dir()
    cases = [case.attrib["name"] for case in ElementTree.parse(tmp_path / "out.xml").iter("testcase")]
    assert {"loads", "parity", "confinement", "coverage", "memory", "latency", "accuracy", "arm64"} <= set(cases)
    printed = capsys.readouterr().out
    assert "integer coverage" in printed and "not measured: arm64, give --arm64" in printed


@pytest.mark.usefixtures("one_process")
def test_a_gate_just_below_what_is_measured_is_kept_and_one_just_above_is_missed(
    make_files: MakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, gates, junit = make_files(), tmp_path / "gates.toml", tmp_path / "out.xml"
    assert run(files, "--json", tmp_path / "previous.json") == 0
    measured = json.loads((tmp_path / "previous.json").read_text())["figures"]["sqnr_db"]
    gates.write_text(f"min_sqnr_db = {measured - 1e-6}\nmax_memory_mb = 3\n[baseline]\nfile = 'previous.json'\n")
    assert run(files, "--gates", gates) == 0
    gates.write_text(f"min_sqnr_db = {measured + 1e-6}\nmax_memory_mb = 3\n")
    capsys.readouterr()
    assert run(files, "--gates", gates, "--junit", junit) == 6
    error = capsys.readouterr().err
    assert f"sqnr_db is {measured:.5g}, the limit is at least {measured:.5g}" in error and error.count("\n") <= 3
    failed = [case.attrib["name"] for case in ElementTree.parse(junit).iter("testcase") if case.find("failure") is not None]
    assert failed == ["min_sqnr_db"]


@pytest.mark.usefixtures("one_process")
def test_a_worse_model_than_the_baseline_misses_it(make_files: MakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text("[baseline]\nfile = 'previous.json'\ntolerance = 0.01\nfigures = ['sqnr_db']\n")
    assert run(make_files(), "--json", tmp_path / "previous.json") == 0
    assert run(make_files((4, 4)), "--gates", gates) == 6
    assert "previous.json, tolerance 0.01" in capsys.readouterr().err


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(
    ("damage", "check", "what"),
    [(remove_clip, "confinement", "codes leave their grid"), (damage_head, "parity", "does not compute what it should")],
)
def test_a_damaged_model_fails_its_check(
    damage: object, check: str, what: str, make_files: MakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(damage)
    files, junit = make_files((8, 5) if damage is remove_clip else (8, 8)), tmp_path / "out.xml"
    files.edit(damage)
    assert run(files, "--junit", junit) == 5
    assert what in capsys.readouterr().err
    failures = {case.attrib["name"]: case.find("failure") for case in ElementTree.parse(junit).iter("testcase")}
    failure = failures[check]
    assert failure is not None and what in failure.attrib["message"]


@pytest.mark.parametrize(
    ("gate", "flags", "what"),
    [
        ("min_ratio_a76 = 1.8", [], "give --arm64 --core cortex-a76"),
        ("max_drop = 0.5", [], "give --data with images in class folders"),
        ("min_sqnr = 1", [], "did you mean min_sqnr_db"),
        ("", ["--core", "cortex-a53"], "--core means nothing without --arm64"),
        ("", ["--arm64", "--core", "cortex-a54"], "core 'cortex-a54' is not known"),
        ("", ["--samples", "0"], "--samples must be at least 1"),
        ("", ["--oldest", "/nowhere"], "no onnxruntime in this folder"),
        ("", ["--oldest", "/nowhere", "--no-oldest"], "not allowed with"),
        ("", ["--limit", "5"], "there are none"),
        ("", ["--plan-in", "/nowhere.json"], "the plan cannot be read"),
        ("min_version_agreement = 90", ["--no-oldest"], "give an older ONNX Runtime"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    gate: str, flags: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gates.toml").write_text(gate)
    assert main(["no_such.onnx", "nor_this.onnx", "--gates", str(tmp_path / "gates.toml"), *flags]) == 2
    error = capsys.readouterr().err
    assert what in error and error.count("\n") <= 3


@pytest.mark.usefixtures("one_process")
def test_a_validation_that_breaks_leaves_no_earlier_verdict(make_files: MakeFiles, tmp_path: Path) -> None:
    files, junit = make_files(), tmp_path / "out.xml"
    assert run(files, "--junit", junit) == 0
    files.int8.write_bytes(b"nothing")
    assert run(files, "--junit", junit) == 3
    (suite,) = ElementTree.parse(junit).iter("testsuite")
    assert (suite.attrib["tests"], suite.attrib["errors"]) == ("1", "1")
    errors = [case.find("error") for case in suite.iter("testcase")]
    assert errors[0] is not None and "not an ONNX model" in errors[0].attrib["message"]


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("flags", [["--plan-in", "/nowhere.json"], ["--limit", "5"], ["--gates", "/nowhere.toml"]])
def test_what_is_refused_leaves_no_earlier_verdict_either(flags: list[str], make_files: MakeFiles, tmp_path: Path) -> None:
    files, junit = make_files(), tmp_path / "out.xml"
    junit.write_text("<testsuites/>")
    assert run(files, "--junit", junit, *flags) == 2
    assert [case.find("error") is not None for case in ElementTree.parse(junit).iter("testcase")] == [True]


@pytest.mark.usefixtures("one_process")
def test_an_error_that_nobody_expects_is_no_pass(make_files: MakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(command_line, "coverage_of", broken)
    assert run(make_files(), "--junit", tmp_path / "out.xml") == 1
    (error,) = ElementTree.parse(tmp_path / "out.xml").iter("error")
    assert error.attrib["message"] == "ZeroDivisionError: of all things"


@pytest.mark.usefixtures("one_process")
def test_confinement_of_a_file_that_says_nothing_of_its_bits_is_not_measured(
    make_files: MakeFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(make_files(says=False)) == 0
    assert "not measured: confinement" in capsys.readouterr().out
    assert run(make_files()) == 0
    assert "not measured: confinement" not in capsys.readouterr().out


@pytest.mark.usefixtures("one_process")
def test_too_few_images_for_a_limit_are_refused(make_files: MakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        folder = tmp_path / "images" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (60 * number, 0, 0)).save(folder / f"{number}.png")
    (tmp_path / "gates.toml").write_text("max_drop = 0.5\n")
    assert run(make_files(), "--data", tmp_path / "images", "--gates", tmp_path / "gates.toml") == 2
    assert "classify 200 or more" in capsys.readouterr().err


def test_a_file_that_is_no_model(make_files: MakeFiles, capsys: pytest.CaptureFixture[str]) -> None:
    files = make_files()
    files.int8.write_bytes(b"nothing")
    assert run(files) == 3
    assert "not an ONNX model" in capsys.readouterr().err
