from __future__ import annotations

from pathlib import Path

import pytest

from runtime_tests.emulation.command import command_line, guest_variables, lay_out_root
from runtime_tests.emulation.environment import Environment


def test_the_guest_stays_on_the_processor_that_its_files_describe() -> None:
    env = Environment(Path("/e"))
    assert command_line(env, "max-sve128", Path("/t/root"), Path("/t/marks"), ["-B", "/g.py", "a"]) == [
        *("taskset", "--cpu-list", "0", "qemu-aarch64", "-L", "/t/root", "-cpu", "max,sme=off,sve-default-vector-length=16"),
        *("-plugin", "/e/plugin/count.so,out=/t/marks", str(env.root / "usr/bin/python3.11"), "-S", "-B", "/g.py", "a"),
    ]


def test_the_guest_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "8")
    monkeypatch.setenv("SOMETHING", "else")
    variables = guest_variables(Environment(Path("/e"), "1.0"))
    assert variables["OPENBLAS_NUM_THREADS"] == "1"
    assert variables["PYTHONPATH"] == "/e/site-1.0"
    assert "SOMETHING" not in variables


def test_the_guest_finds_the_packages_and_the_core(tmp_path: Path) -> None:
    env = Environment(tmp_path / "e")
    (env.root / "usr" / "bin").mkdir(parents=True)
    (env.root / "usr" / "bin" / "python3.11").touch()
    root = lay_out_root(env, "cortex-a53", tmp_path / "root")
    assert (root / "usr" / "bin" / "python3.11").exists()
    assert "0xd03" in (root / "proc" / "cpuinfo").read_text()
    assert (root / "sys" / "devices" / "system" / "cpu" / "present").read_text() == "0\n"
    assert not (env.root / "proc").exists()
