"""No command of the documentation rots: all of them parse, and what can be run in seconds is run.

A page's commands run in their order, in a folder with small stand-ins for the files that they name.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import re
import runpy
import shutil
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import yaml

from converter.cli.flags import parse_flags, read_options
from converter.cli.main import main
from converter.cli.subcommands import SUBCOMMANDS
from converter.errors import ConverterError
from tools.docs.pages import ROOT, Command, commands, fences, mentions, pages, words_of
from tools.docs.testing.workspace import make_board, make_workspace

PLACEHOLDERS = {
    "A": "model.onnx",
    "B": "model_int8.onnx",
    "BITS": "W8A8",
    "CORE": "cortex-a76",
    "DIR": "results",
    "FOLDER": "results",
    "N": "3",
    "NAME": "mobilevit_xxs",
    "PART": "range_margin",
    "PATH": "labelled",
    "TARGET": "arm64",
    "TASK": "classifier",
    "VERSION": "1.23.2",
}
"""Values for words that stand for a reader's own."""

PARSED_ONLY = {
    "models.train": "minutes",
    "onnxruntime": "the runtime's own tool, on a file that data of the reader's make",
    "runtime_tests.ci": "results of earlier runs; its own tests run whole workflows",
    "tools.arm64": "the emulated machine",
    "tools.benchmarks": "minutes, and data that are not in the repository",
    "tools.device_bench": "a device",
    "tools.demo": "a network from the package registry",
    "tools.docs": "a test of its own",
    "tools.fuzz": "minutes",
    "tools.importers": "packages of others",
    "tools.profile": "minutes, and the emulated machine",
    "tools.runtimes": "every ONNX Runtime",
    "tools.upstream": "the emulated machine",
    "tools.web": "Node and a package of npm's",
}
"""Modules whose commands are not run here, and what they would need."""

OWN_DATA = ("$DATA", "imagenet_sample.zip", "cls_calib.zip", "published/", "--arm64", "--oldest")
"""Commands with one of these are not run either: they need data or machines that stand-ins cannot replace."""

PROGRAMS = ("python", "bridgequant", "pip", "make")
SHELL = ("export", ".", "cd", "git")

MISTAKES = ROOT / "docs" / "troubleshooting.md"
"""The page whose commands are wrong; troubleshooting_test.py runs them."""

EVERY_PAGE = pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
PAGES = pytest.mark.parametrize("page", [page for page in pages() if page != MISTAKES], ids=lambda page: page.name)


class Parsed(BaseException):
    """Raised behind the parser, where a command would begin to work; no handler of errors takes it."""


def steps(page: Path) -> list[Command]:
    """Commands of a page: those in its shell blocks, then those in the workflows that it shows."""
    text = page.read_text()
    return [
        *commands(text),
        *(Command(fence.line, line) for fence in fences(text) if fence.language == "yaml" for line in runs(fence.text)),
    ]


def runs(workflow: str) -> Iterator[str]:
    for job in yaml.safe_load(workflow)["jobs"].values():
        for step in job["steps"]:
            for line in step.get("run", "").strip().splitlines():
                yield from line.split(" && ")


def called(words: Sequence[str]) -> tuple[str, list[str]]:
    """The module that a command calls, and its words; that of a conversion is ``converter``."""
    if words[0] == "bridgequant":
        return "converter", list(words[1:])
    if words[1] == "-m":
        return words[2], list(words[3:])
    assert words[1].endswith("convert.py"), words
    return "converter", list(words[2:])


def stop(parser: argparse.ArgumentParser, words: Sequence[str] | None = None, namespace: Any = None) -> NoReturn:
    _, rest = parser.parse_known_args(words, namespace)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    raise Parsed


def parse(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What the parser of a module complains of; empty if of nothing."""
    if module == "converter" and not (words and words[0] in SUBCOMMANDS):
        try:
            read_options(parse_flags(words))
        except ConverterError as error:
            return str(error)
        return ""
    said = io.StringIO()
    with monkeypatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        try:
            call(module, words, patch)
        except Parsed:
            return ""
    return said.getvalue() or "it asked for no flags"


def call(module: str, words: list[str], patch: pytest.MonkeyPatch) -> int:
    """Run a module as a program would be; returns the exit code."""
    if module == "converter":
        return main(words)
    patch.setattr(sys, "argv", [module, *words])
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as done:
        return int(done.code or 0)
    return 0


@PAGES
def test_every_command_is_one_of_ours_and_its_flags_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_board(tmp_path)
    monkeypatch.chdir(tmp_path)
    complaints = []
    for step in steps(page):
        words = words_of(step.text, PLACEHOLDERS)
        if words[0] == "pip":
            check_installation(words)
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), step
        elif words[0] in SHELL or words[:3] == ["python3", "-m", "venv"]:
            continue
        elif step.script:
            compile(step.script, page.name, "exec")
        else:
            assert words[0] in PROGRAMS, f"{page.name}:{step.line} is no command; mark what was printed as text"
            if complaint := parse(*called(words), monkeypatch):
                complaints.append(f"{page.name}:{step.line} {step.text}\n{complaint}")
    assert complaints == []


def check_installation(words: Sequence[str]) -> None:
    """Extras and files that are named are there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        for names in re.findall(r"(?:\.|bridgequant)\[(.*)\]", word):
            assert set(names.split(",")) <= extras.keys(), words
        if word.endswith(".txt"):
            assert (ROOT / word.removeprefix("bridgequant/")).exists(), words


@EVERY_PAGE
def test_commands_in_running_text_have_no_unknown_flags(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may leave out what is required."""
    complaints = []
    for mention in mentions(page.read_text()):
        words = words_of(mention, PLACEHOLDERS)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), mention
        elif words[0] == "pip":
            check_installation(words)
        elif "COMMAND" not in words:
            complaint = parse(*called(words), monkeypatch)
            if complaint and "required" not in complaint:
                complaints.append(f"{mention}: {complaint}")
    assert complaints == []


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("python convert.py a.onnx b.onnx --sample 3", "there is no flag '--sample'"),
        ("python convert.py a.onnx b.onnx --target armv8", "armv8"),
        ("bridgequant compare a b --colour", "--colour"),
        ("python -m models.evaluate a.onnx --data b --top5", "--top5"),
        ("python -m tools.front", "required"),
    ],
)
def test_what_has_rotten_is_found(command: str, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complaint in parse(*called(words_of(command, {})), monkeypatch)


def test_workflows_are_read_step_by_step() -> None:
    workflow = "jobs:\n  a:\n    steps:\n      - uses: b\n      - run: |\n          pip install .\n          cd c && python d.py\n"
    assert list(runs(workflow)) == ["pip install .", "cd c", "python d.py"]


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stand_ins")
    make_workspace(folder)
    return folder


@pytest.fixture
def workspace(stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "workspace"
    shutil.copytree(stand_ins, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return folder


def runnable(module: str, step: Command) -> bool:
    return not any(module == name or module.startswith(f"{name}.") for name in PARSED_ONLY) and not any(m in step.text for m in OWN_DATA)


def _quicker(module: str, words: Sequence[str]) -> list[str]:
    """Fewer samples than by default for a conversion whose words say nothing of them."""
    converts = module == "converter" and words[0] not in set(SUBCOMMANDS) - {"convert"}
    return ["--samples", "4"] if converts and not {"--samples", "--max-drop", "--plan-in"} & set(words) else []


@pytest.mark.slow
@PAGES
def test_what_can_be_run_in_seconds_is_run(
    page: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in commands(page.read_text()):
        words = words_of(step.text, PLACEHOLDERS)
        if words[0] in ("python", "bridgequant") and not step.script:
            module, rest = called(words)
            if runnable(module, step):
                code = call(module, [*rest, *_quicker(module, rest)], monkeypatch)
                assert code == 0, f"{page.name}:{step.line} {step.text}\n{capsys.readouterr().err}"


@pytest.mark.slow
@PAGES
def test_scripts_run(page: Path, workspace: Path) -> None:
    """Those that import another tool which is not installed are compiled."""
    names: dict[str, Any] = {"Reader": Reader}
    for fence in fences(page.read_text()):
        if fence.language == "python":
            code = compile(fence.text, f"{page.name}:{fence.line}", "exec")
            if all(importlib.util.find_spec(name) for name in re.findall(r"^(?:import|from) (\w+)", fence.text, re.MULTILINE)):
                exec(code, names)


class Reader:
    """Calibration data as ``quantize_static`` takes them."""

    def __init__(self, folder: str) -> None:
        self.feeds = iter([{"image": np.random.default_rng(0).random((1, 3, 32, 32), np.float32)}])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)
