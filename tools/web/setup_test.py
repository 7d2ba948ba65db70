"""Installing, with programs of our own in the place of Node and npm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.web.package import FOLDER_VARIABLE, VERSION, find_package
from tools.web.setup import main

Program = Callable[[str, str], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A function that makes a shell script the program of that name; there are no others but those of the shell."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return make


def npm(tmp_path: Path, version: str = VERSION) -> str:
    """Keeps what it was asked, and installs."""
    package = "there/node_modules/onnxruntime-web"
    content = json.dumps({"version": version})
    return f"PATH=/usr/bin:/bin; cd {tmp_path}; echo \"$@\" >> asked; mkdir -p {package}; echo '{content}' > {package}/package.json"


def test_the_package_is_installed_into_the_folder_once_and_no_script_is_run(
    tmp_path: Path, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    program("node", "")
    program("npm", npm(tmp_path))
    folder = tmp_path / "there"
    for _ in range(2):
        assert main([str(folder)]) == 0
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == [f"install --prefix {folder} --ignore-scripts --no-audit --no-fund onnxruntime-web@{VERSION}"]
    assert capsys.readouterr().out == f"ready: ONNX Runtime Web {VERSION} in {folder}\n" * 2
    assert find_package(folder).version == VERSION


def test_another_version_takes_the_place_of_the_one_that_is_there(tmp_path: Path, program: Program) -> None:
    program("node", "")
    program("npm", npm(tmp_path))
    assert main([str(tmp_path / "there")]) == 0
    program("npm", npm(tmp_path, "1.2.3"))
    assert main([str(tmp_path / "there"), "--version", "1.2.3"]) == 0
    assert find_package(tmp_path / "there").version == "1.2.3"


@pytest.mark.parametrize(
    ("programs", "words", "code", "what"),
    [
        ({}, ["there"], 2, "the program 'node' is missing"),
        ({"node": ""}, ["there"], 2, "the program 'npm' is missing"),
        ({"node": "", "npm": "echo 'npm error 404' >&2; exit 1"}, ["there"], 1, "installing onnxruntime-web failed: npm error 404"),
        ({"node": "", "npm": ""}, ["there"], 1, "npm ended well, but the package is not there"),
        ({"node": ""}, ["there", "--version", "newest"], 2, "'newest' is no version"),
        ({"node": ""}, ["file"], 2, "the folder cannot be made: File exists"),
        ({}, [], 2, "the following arguments are required: FOLDER"),
    ],
)
def test_what_goes_wrong_is_told_in_three_lines(
    programs: dict[str, str],
    words: list[str],
    code: int,
    what: str,
    tmp_path: Path,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    for name, script in programs.items():
        program(name, script)
    assert main(words) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {what}" and len(lines) <= 3


def test_the_folder_is_named_by_a_flag_or_a_variable(tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program("node", "")
    program("npm", npm(tmp_path))
    assert main([str(tmp_path / "there")]) == 0
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "there"))
    assert find_package() == find_package(tmp_path / "there")
