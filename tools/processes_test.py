from __future__ import annotations

import sys
import time

import pytest

from tools.processes import run_limited


def python(program: str, seconds: float = 30.0, megabytes: float | None = None) -> tuple[int | None, str, str, float, str]:
    ended = run_limited([sys.executable, "-c", program], seconds=seconds, megabytes=megabytes, environment={"GIVEN": "x"})
    return ended.code, ended.out, ended.err, ended.megabytes, ended.complaint


def test_what_a_command_writes_and_returns_is_told() -> None:
    code, out, err, _, complaint = python(
        "import os, sys; print(os.environ['GIVEN']); sys.stderr.write('error: no\\n  do: so\\n'); sys.exit(3)"
    )
    assert (code, out, err, complaint) == (3, "x\n", "error: no\n  do: so\n", "error: no")
    assert python("raise ValueError('no')")[4] == "ValueError: no"
    assert python("pass")[4] == ""


def test_a_command_that_dies_or_does_not_end_is_told_so() -> None:
    assert python("import os; os.kill(os.getpid(), 11)")[::4] == (-11, "ended by SIGSEGV")
    begun = time.monotonic()
    code, *_, complaint = python("import time; time.sleep(60)", seconds=0.3)
    assert code is None and "not done" in complaint and time.monotonic() - begun < 20


def test_memory_is_measured_and_bounded() -> None:
    hold = "import time; x = b'1' * int(2 * 10**"
    small, large = python(f"{hold}7); time.sleep(0.2)")[3], python(f"{hold}8); time.sleep(0.2)")[3]
    assert large - small == pytest.approx(180, abs=30)
    assert python("x = b'1' * (2 * 10**8)", megabytes=100)[4] == "MemoryError"
