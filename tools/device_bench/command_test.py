"""Flags that make no sense end before any device is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.device_bench.__main__ import main
from tools.device_bench.testing.converted import Converted


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "one of the arguments --ssh --adb --local is required"),
        (["--ssh", "board", "--local"], "not allowed with argument --ssh"),
        (["--ssh=-oProxyCommand=x"], "'-oProxyCommand=x' names no device"),
        (["--local", "--ssh-options=-p 1"], "--ssh-options means nothing without --ssh"),
        (["--ssh", "board", "--ssh-options='"], "the words cannot be told apart"),
        (["--local", "--python", ""], "nothing starts Python"),
        (["--local", "--cores", "four"], "'four' is no list of cores"),
        (["--local", "--threads", "0"], "--threads must be at least 1"),
        (["--local", "--plan-in", "a.json", "--plan-in", "b.json"], "1 int8 models and 2 plans"),
        (["--local", "--json", "/nowhere/out.json"], "the folder of --json does not exist"),
    ],
)
def test_such_flags_are_refused(flags: list[str], said: str, converted: Converted, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(converted.floats), str(converted.int8), *flags]) == 2
    assert said in (told := capsys.readouterr().err) and len(told.splitlines()) <= 3


def test_adb_takes_a_serial_number_or_none(
    converted: Converted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for flags, device in (["--adb"], "the only device"), (["--adb", "R58N1"], "R58N1"):
        assert main([str(converted.floats), str(converted.int8), *flags]) == 2
        assert f"the program 'adb' is missing\n  at: {device}" in capsys.readouterr().err


def test_a_model_that_is_not_there(converted: Converted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(converted.floats), str(tmp_path / "none.onnx"), "--local"]) == 3
    assert "the input file does not exist" in capsys.readouterr().err
